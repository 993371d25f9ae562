package fstree

import (
	"cmp"
	"errors"
	"io/fs"
	"strings"
	"time"
)

// The file types in [Entry.Mode], as in stat(2) on Linux whatever the host is.
const (
	ModeType    = 0o170000
	ModeSocket  = 0o140000
	ModeSymlink = 0o120000
	ModeRegular = 0o100000
	ModeBlock   = 0o060000
	ModeDir     = 0o040000
	ModeChar    = 0o020000
	ModeFifo    = 0o010000
)

var (
	// ErrLoop is returned when resolving a path meets too many symlinks.
	ErrLoop = errors.New("too many levels of symbolic links")
	// ErrNotDir is returned when something is not the directory it had to be.
	ErrNotDir = errors.New("not a directory")
	// ErrIsDir is returned when something is a directory that must not be one.
	ErrIsDir = errors.New("is a directory")
	// ErrNotEmpty is returned when a directory that is not empty was to be removed without what is inside.
	ErrNotEmpty = errors.New("directory not empty")
	// ErrChanged is returned when the content of a file is not any more what the tree says it is.
	ErrChanged = errors.New("file has changed")
	// ErrNotRegular is returned when the content of something other than a regular file is asked for.
	ErrNotRegular = errors.New("not a regular file")
)

// IsDir says whether the entry is a directory.
func (e *Entry) IsDir() bool { return !e.Whiteout && e.Mode&ModeType == ModeDir }

// IsRegular says whether the entry is a regular file.
func (e *Entry) IsRegular() bool { return !e.Whiteout && e.Mode&ModeType == ModeRegular }

// IsSymlink says whether the entry is a symlink.
func (e *Entry) IsSymlink() bool { return !e.Whiteout && e.Mode&ModeType == ModeSymlink }

// Name is the last component of the path, "" for the root.
func (e *Entry) Name() string { return base(e.Path) }

// Compare orders paths as [Walk] visits them: a directory before what is inside, siblings bytewise.
func Compare(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] == b[i] {
			continue
		}
		// What ends a name sorts before every byte a name can hold.
		switch {
		case a[i] == '/':
			return -1
		case b[i] == '/':
			return 1
		}
		return cmp.Compare(a[i], b[i])
	}
	return cmp.Compare(len(a), len(b))
}

func base(p string) string { return p[strings.LastIndexByte(p, '/')+1:] }

func parent(p string) string {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i]
	}
	return ""
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	if name == "" {
		return dir
	}
	return dir + "/" + name
}

// within says whether p is dir or lies below it.
func within(dir, p string) bool {
	return dir == "" || p == dir || strings.HasPrefix(p, dir) && p[len(dir)] == '/'
}

func pathError(op, path string, err error) error {
	if path == "" {
		path = "/"
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

func notExist(op, path string) error { return pathError(op, path, fs.ErrNotExist) }

// epoch is the time of what has none.
var epoch = time.Unix(0, 0).UTC()
