package blob

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// The parts of the EROFS format that a blob uses. All numbers are little-endian.
const (
	superMagic = 0xE0F5E1E2
	superSize  = 128

	compatSuperSum = 1 << 0 // the superblock has a checksum
	compatMtime    = 1 << 1 // inodes hold mtimes

	blockBits = 9
	slotSize  = 32 // the unit of inode numbers

	inodeSize    = 64 // an extended inode
	formatPlain  = 1 | 0<<1
	formatInline = 1 | 2<<1

	direntSize = 12

	// rootPos is where the root's inode is. Number 0 would be no inode at all to readdir(3).
	rootPos = 2 * slotSize
)

// fileTypes are the types in directory entries.
var fileTypes = map[uint32]byte{
	fstree.ModeRegular: 1,
	fstree.ModeDir:     2,
	fstree.ModeChar:    3,
	fstree.ModeBlock:   4,
	fstree.ModeFifo:    5,
	fstree.ModeSocket:  6,
	fstree.ModeSymlink: 7,
}

// putSuper writes the superblock into its block b.
func putSuper(b []byte, h *header, inodes uint32) {
	le := binary.LittleEndian
	le.PutUint32(b[0:], superMagic)
	le.PutUint32(b[8:], compatSuperSum|compatMtime)
	b[12] = blockBits
	le.PutUint16(b[14:], rootPos/slotSize)
	le.PutUint64(b[16:], uint64(inodes))
	le.PutUint32(b[36:], uint32(h.size/blockSize))
	le.PutUint32(b[40:], uint32(h.meta/blockSize))
	// overlayfs tells layers apart by UUID and gives up on hard links where it is zero.
	copy(b[48:64], h.diffID[:])
	le.PutUint32(b[4:], ^crc32.Checksum(b[:blockSize], castagnoli))
}

// putInode writes the fixed part of i.
func putInode(b []byte, i *inode) {
	le := binary.LittleEndian
	le.PutUint16(b[0:], formatPlain)
	if i.inline {
		le.PutUint16(b[0:], formatInline)
	}
	if n := xattrSize(i.xattrs); n > 0 {
		le.PutUint16(b[2:], uint16((n-xattrHeader)/4+1))
	}
	le.PutUint16(b[4:], uint16(i.mode))
	le.PutUint64(b[8:], uint64(i.size))
	switch i.mode & fstree.ModeType {
	case fstree.ModeChar, fstree.ModeBlock:
		le.PutUint32(b[16:], i.rdev)
	default:
		le.PutUint32(b[16:], uint32(i.data/blockSize))
	}
	le.PutUint32(b[20:], i.serial)
	le.PutUint32(b[24:], i.uid)
	le.PutUint32(b[28:], i.gid)
	le.PutUint64(b[32:], uint64(i.sec))
	le.PutUint32(b[40:], i.nsec)
	le.PutUint32(b[44:], i.nlink)
}

// makedev packs device numbers as the kernel's new_encode_dev.
func makedev(major, minor uint32) uint32 { return minor&0xff | major<<8 | minor&^0xff<<12 }

func splitdev(d uint32) (major, minor uint32) { return d >> 8 & 0xfff, d&0xff | d>>12&^0xff }
