// Package blob is how layers are kept in files.
//
// A blob is one layer in one file, which the kernel mounts and which nobody needs to unpack:
//
//	0      4096 bytes of header: the EROFS superblock at 1024, ours at 2048
//	4096   the layer's uncompressed tar, byte for byte, whatever follows its end marker included
//	...    the content of sparse files, expanded; most layers have none
//	...    EROFS metadata: inodes, directories; and a table of what EROFS cannot say
//
// File content is always at a multiple of 512 in a tar, which is the block size, so that the metadata can point into the tar.
// The digest of the tar, the diffID, is the layer's name; it is in the header, so a blob says by itself what it is.
//
// [Index] makes a blob of a foreign tar, [Pack] of entries, with a tar of its own making: equal entries give equal bytes. Both
// write a file once from front to back and its header last. [Open] reads the metadata in user space. The package trusts a tar
// with nothing. A blob it trusts to be written by itself, but not to be undamaged; the kernel must only ever mount blobs
// that are.
//
// The other form of a layer is a directory as overlayfs writes one: [DirTree] reads it and [Unpack] makes one of any layer.
//
// Marks that a layer uses: a whiteout says that a name is gone from the layers below; an opaque directory hides the one below;
// an implied directory is one that the layer has no entry for, but things inside.
package blob
