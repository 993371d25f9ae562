// Package fsstat turns entries of trees into the Stats of the file sync protocol and back, and shows a whole tree as file sync sends
// it.
package fsstat

import (
	"io/fs"
	"time"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"
)

// typeBits pairs the file types of Go's FileMode, which travels, with those of stat(2), which fstree uses.
var typeBits = [...]struct {
	mode fs.FileMode
	unix uint32
}{
	{0, unix.S_IFREG},
	{fs.ModeDir, unix.S_IFDIR},
	{fs.ModeSymlink, unix.S_IFLNK},
	{fs.ModeNamedPipe, unix.S_IFIFO},
	{fs.ModeSocket, unix.S_IFSOCK},
	{fs.ModeDevice, unix.S_IFBLK},
	{fs.ModeDevice | fs.ModeCharDevice, unix.S_IFCHR},
}

var specialBits = [...]struct {
	mode fs.FileMode
	unix uint32
}{{fs.ModeSetuid, unix.S_ISUID}, {fs.ModeSetgid, unix.S_ISGID}, {fs.ModeSticky, unix.S_ISVTX}}

// Entry turns a Stat, as it travels, into a tree's entry. The Stat must have been checked, as those that a transfer of package filesync gives are.
func Entry(st *types.Stat) fstree.Entry {
	e := fstree.Entry{
		Path: st.Path, UID: st.Uid, GID: st.Gid,
		ModTime: time.Unix(0, st.ModTime),
		Mode:    st.Mode & 0o777,
	}
	mode := fs.FileMode(st.Mode)
	for _, t := range typeBits {
		if mode.Type() == t.mode {
			e.Mode |= t.unix
		}
	}
	for _, b := range specialBits {
		if mode&b.mode != 0 {
			e.Mode |= b.unix
		}
	}
	switch {
	case mode&fs.ModeSymlink != 0:
		e.Linkname = st.Linkname
	case mode.IsDir():
	case st.Linkname != "":
		e.Hardlink = st.Linkname
		e.Size = st.Size
	case mode.IsRegular():
		e.Size = st.Size
	default:
		e.Major, e.Minor = uint32(st.Devmajor), uint32(st.Devminor)
	}
	if len(st.Xattrs) > 0 {
		e.Xattrs = make(map[string]string, len(st.Xattrs))
		for k, v := range st.Xattrs {
			e.Xattrs[k] = string(v)
		}
	}
	return e
}

// Stat is the inverse of [Entry].
func Stat(e fstree.Entry) *types.Stat {
	st := &types.Stat{
		Path: e.Path, Uid: e.UID, Gid: e.GID,
		ModTime: e.ModTime.UnixNano(),
		Mode:    e.Mode & 0o777,
	}
	for _, t := range typeBits {
		if e.Mode&unix.S_IFMT == t.unix {
			st.Mode |= uint32(t.mode)
		}
	}
	for _, b := range specialBits {
		if e.Mode&b.unix != 0 {
			st.Mode |= uint32(b.mode)
		}
	}
	switch {
	case e.Linkname != "":
		st.Linkname = e.Linkname
		st.Size = int64(len(e.Linkname))
	case e.Hardlink != "":
		st.Linkname = e.Hardlink
		st.Size = e.Size
	case e.Mode&unix.S_IFMT == unix.S_IFREG:
		st.Size = e.Size
	default:
		st.Devmajor, st.Devminor = int64(e.Major), int64(e.Minor)
	}
	if len(e.Xattrs) > 0 {
		st.Xattrs = make(map[string][]byte, len(e.Xattrs))
		for k, v := range e.Xattrs {
			st.Xattrs[k] = []byte(v)
		}
	}
	return st
}
