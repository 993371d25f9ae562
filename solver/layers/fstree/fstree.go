// Package fstree reads and writes file system trees in user space: no mount, no root, no host paths.
//
// A [Tree] is an immutable tree of [Entry] values with file contents: the view of one layer, or of a stack of layers. A
// [Delta] is a tree in the making over a base; what it changed is what a new layer holds. Paths are slash-separated, relative
// to the root, clean, and never start with a slash or hold "..": the root is "". Symlinks are data; only [Resolve] follows
// them, and never out of the root.
package fstree

import (
	"context"
	"io"
	"time"
)

// Entry is one name in a tree.
type Entry struct {
	// Path is the whole path from the root.
	Path string
	// Mode holds the file type and the permission bits as stat(2) does (S_IFMT and 07777).
	Mode uint32
	UID  uint32
	GID  uint32
	// Size is the length of a regular file in bytes.
	Size int64
	// ModTime has nanoseconds and may lie before 1970.
	ModTime time.Time
	// Linkname is the target of a symlink, byte for byte.
	Linkname string
	// Hardlink is the path of the first name of the same file in this layer, "" for a first or only name.
	Hardlink string
	// Major and Minor are the numbers of a device node.
	Major, Minor uint32
	// Xattrs holds extended attributes by full name. overlayfs's own never appear here.
	Xattrs map[string]string
	// Whiteout says that the name is removed from the layers below; nothing but Path counts then.
	Whiteout bool
	// Opaque says, of a directory, that nothing of the same directory in layers below shows through.
	Opaque bool
	// Implied says, of a directory, that the layer has no entry of its own for it, only things inside: where a layer below has
	// the directory, its mode, owner and time count.
	Implied bool
}

// Content is the bytes of a regular file. Close must be called once.
type Content interface {
	io.ReaderAt
	io.Closer
	// Size is the length in bytes.
	Size() int64
}

// Tree is an immutable tree. All methods are safe for concurrent use.
type Tree interface {
	// Stat returns the entry at path without following any symlink, the root for "". A missing name, or one below something
	// that is no directory, is fs.ErrNotExist.
	Stat(ctx context.Context, path string) (Entry, error)
	// ReadDir returns the entries of a directory sorted by name bytewise. The tree of one layer shows its whiteouts; a stack
	// shows none.
	ReadDir(ctx context.Context, path string) ([]Entry, error)
	// Open opens a regular file.
	Open(ctx context.Context, path string) (Content, error)
}

// Source yields the entries of a layer about to be made: parents before children, siblings sorted bytewise, first names of
// hard links before further ones. Next returns io.EOF at the end. open is nil for anything but a regular file's first name
// and gives exactly Size bytes.
type Source interface {
	Next(ctx context.Context) (e Entry, open func(context.Context) (io.ReadCloser, error), err error)
}
