package blob

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// A layout says where everything of the metadata goes, then writes it. The order is that of a walk, so that a walk reads the
// blob from front to back: the inode area (the root first), targets of long symlinks and directories, the table.
type layout struct {
	nodes  []*node // every name but the root, as in a walk
	dirs   []*dirBlocks
	long   []*inode // symlinks whose target is not inline
	inodes []*inode // each once
	base   int64    // where the metadata is in the blob
	area   int64    // length of the inode area
	blocks int64    // length of the inode area and all blocks
	flags  uint32
}

// dirBlocks is a directory with its children sorted.
type dirBlocks struct {
	*node
	kids []*node
}

// layOut plans the metadata of the layer that a holds, to be put at base.
func layOut(a *assembly, base int64) *layout {
	l := &layout{base: base, area: rootPos, flags: flagEmpty}
	a.root.ino.nlink = 2
	l.enter(a.root)
	if a.root.opaque || !a.root.implied {
		l.flags &^= flagEmpty
	}
	l.area = align(l.area, blockSize)
	at := l.area
	for _, i := range l.long {
		i.data = base + at
		at += align(i.size, blockSize)
	}
	for _, d := range l.dirs {
		d.ino.data, d.ino.size = base+at, d.measure()
		at += align(d.ino.size, blockSize)
	}
	l.blocks = at
	return l
}

// enter plans n and everything below.
func (l *layout) enter(n *node) {
	i := n.ino
	if n.hides() {
		i.xattrs = append(slices.Clone(i.xattrs), opaqueMark())
		l.flags |= flagWhiteouts
	}
	if i.isWhiteout() {
		l.flags |= flagWhiteouts
	}
	if n.implied && n.up != nil {
		l.flags |= flagImplied
	}
	if i.pos == 0 {
		i.first = n
		l.reserve(i)
	}
	if !i.isDir() {
		i.nlink++
		return
	}
	d := &dirBlocks{node: n, kids: make([]*node, 0, len(n.kids))}
	for _, k := range n.kids {
		d.kids = append(d.kids, k)
	}
	slices.SortFunc(d.kids, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	l.dirs = append(l.dirs, d)
	for _, k := range d.kids {
		if k.ino.isDir() {
			k.ino.nlink = 2
			i.nlink++
		}
		l.flags &^= flagEmpty
		l.nodes = append(l.nodes, k)
		l.enter(k)
	}
}

// reserve finds a place for i in the inode area. Neither the fixed part of an inode nor an inline target may cross a block.
func (l *layout) reserve(i *inode) {
	fixed := inodeSize + int64(xattrSize(i.xattrs))
	if l.area%blockSize > blockSize-inodeSize {
		l.area = align(l.area, blockSize)
	}
	if i.mode&fstree.ModeType == fstree.ModeSymlink {
		switch {
		case (l.area+fixed)%blockSize+i.size <= blockSize:
			i.inline = true
		case fixed%blockSize+i.size <= blockSize:
			i.inline = true
			l.area = align(l.area, blockSize)
		default:
			l.long = append(l.long, i)
		}
	}
	i.pos = l.area
	i.serial = uint32(len(l.inodes) + 1)
	l.inodes = append(l.inodes, i)
	l.area += fixed
	if i.inline {
		l.area += i.size
	}
	l.area = align(l.area, slotSize)
}

// each calls fn for the entries of a directory block by block, sorted with "." and ".." where they belong.
func (d *dirBlocks) each(fn func(block []dirent)) {
	up := d.up
	if up == nil {
		up = d.node
	}
	var (
		block []dirent
		used  int
		dots  = []dirent{{".", d.ino}, {"..", up.ino}}
	)
	add := func(e dirent) {
		if used += direntSize + len(e.name); used > blockSize {
			fn(block)
			block, used = block[:0], direntSize+len(e.name)
		}
		block = append(block, e)
	}
	for _, k := range d.kids {
		for len(dots) > 0 && dots[0].name < k.name {
			add(dots[0])
			dots = dots[1:]
		}
		add(dirent{k.name, k.ino})
	}
	for _, e := range dots {
		add(e)
	}
	fn(block)
}

type dirent struct {
	name string
	ino  *inode
}

// measure is the size of the directory: all its blocks full but the last.
func (d *dirBlocks) measure() int64 {
	var size int64
	d.each(func(block []dirent) {
		size = align(size, blockSize)
		for _, e := range block {
			size += direntSize + int64(len(e.name))
		}
	})
	return size
}

// encode returns the metadata; the table begins at tableAt in it.
func (l *layout) encode() (b []byte, tableAt int64) {
	b = make([]byte, l.blocks, l.blocks+l.blocks/16+blockSize)
	for _, i := range l.inodes {
		putInode(b[i.pos:], i)
		at := i.pos + inodeSize
		if n := int64(xattrSize(i.xattrs)); n > 0 {
			putXattrs(b[at:at+n], i.xattrs)
			at += n
		}
		if i.inline {
			copy(b[at:], i.linkname)
		}
	}
	for _, i := range l.long {
		copy(b[i.data-l.base:], i.linkname)
	}
	for _, d := range l.dirs {
		at := d.ino.data - l.base
		d.each(func(block []dirent) {
			putDirents(b[at:at+blockSize], block)
			at += blockSize
		})
	}
	b = l.appendTable(b)
	return b, l.blocks
}

func putDirents(b []byte, block []dirent) {
	le := binary.LittleEndian
	at := direntSize * len(block)
	for i, e := range block {
		d := b[direntSize*i:]
		le.PutUint64(d, uint64(e.ino.pos/slotSize))
		le.PutUint16(d[8:], uint16(at))
		d[10] = fileTypes[e.ino.mode&fstree.ModeType]
		at += copy(b[at:], e.name)
	}
}
