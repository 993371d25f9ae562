package blob

import (
	"fmt"
	"path"
	"strings"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// An inode is a file of the layer in the making, whatever its type. Hard links share one.
type inode struct {
	mode     uint32 // as stat(2)
	uid, gid uint32
	size     int64
	sec      int64
	nsec     uint32
	rdev     uint32
	linkname string
	xattrs   []xattr // sorted by name
	data     int64   // where the content of a regular file is in the blob, a multiple of the block size

	// Set while the metadata is laid out.
	nlink  uint32
	serial uint32
	pos    int64 // in the inode area; 0 is none yet
	inline bool  // the symlink's target follows the inode
	first  *node
}

func (i *inode) isDir() bool { return i.mode&fstree.ModeType == fstree.ModeDir }

// isWhiteout knows a whiteout by what overlayfs knows it by. Nothing else of that kind gets into a layer.
func (i *inode) isWhiteout() bool {
	return i.mode&fstree.ModeType == fstree.ModeChar && i.rdev == 0
}

// A node is a name of the layer in the making.
type node struct {
	name    string
	up      *node
	ino     *inode
	kids    map[string]*node // of a directory
	depth   int
	pathLen int
	// whited says that the layer has a whiteout of the name, whatever else it has: below, the name is gone.
	whited bool
	// opaque says, of a directory, that it hides the one below.
	opaque bool
	// implied says, of a directory, that it is only there because of what is inside.
	implied bool
}

func (n *node) path() string {
	if n.up == nil {
		return ""
	}
	if p := n.up.path(); p != "" {
		return p + "/" + n.name
	}
	return n.name
}

// hides says whether the directory n must be marked opaque.
func (n *node) hides() bool { return n.ino.isDir() && (n.opaque || n.whited) }

// An assembly is the tree of a layer in the making. It resolves names inside itself, never on the host.
type assembly struct {
	root   *node
	limits Limits
	names  int // made so far, those since removed included
	// parked holds the files of old AUFS layers that exist only to be linked to.
	parked map[string]*inode
}

func newAssembly(l Limits) *assembly {
	root := &node{ino: impliedDir(), kids: map[string]*node{}, implied: true}
	return &assembly{root: root, limits: l.withDefaults(), parked: map[string]*inode{}}
}

func impliedDir() *inode { return &inode{mode: fstree.ModeDir | 0o755} }

// clean is name as a path from the root. Nothing may lead out of it, not even what would come back.
func clean(name string) (string, error) {
	p := path.Clean(strings.TrimLeft(name, "/"))
	switch {
	case p == ".." || strings.HasPrefix(p, "../"):
		return "", entryError(name, ErrUnsafePath, "leads out of the root")
	case strings.IndexByte(name, 0) >= 0:
		return "", entryError(name, ErrUnsafePath, "holds a zero byte")
	case p == ".":
		return "", nil
	}
	return p, nil
}

// dir returns the node of the directory p, following symlinks of this layer and making what is missing. name is the entry that
// it is for.
func (a *assembly) dir(p, name string) (*node, error) {
	cur := a.root
	if p == "" {
		return cur, nil
	}
	for links := 0; p != ""; {
		var c string
		c, p, _ = strings.Cut(p, "/")
		switch c {
		case "", ".":
			continue
		case "..": // only of a symlink's target
			if cur.up != nil {
				cur = cur.up
			}
			continue
		}
		next := cur.kids[c]
		switch {
		case next == nil || next.ino.isWhiteout():
			n, err := a.add(cur, c, impliedDir(), name)
			if err != nil {
				return nil, err
			}
			// What stands on a whiteout owes nothing to the layers below.
			n.implied = !n.whited
			cur = n
		case next.ino.isDir():
			cur = next
		case next.ino.linkname != "":
			if links++; links > 40 {
				return nil, entryError(name, ErrBadEntry, "%w", fstree.ErrLoop)
			}
			if strings.HasPrefix(next.ino.linkname, "/") {
				cur = a.root
			}
			p = next.ino.linkname + "/" + p
		default:
			return nil, entryError(name, ErrBadEntry, "%q is not a directory", shorten(next.path()))
		}
	}
	return cur, nil
}

// place splits the clean path p of an entry into the node of its directory and its last component.
func (a *assembly) place(p, name string) (*node, string, error) {
	if len(p) > a.limits.PathLen {
		return nil, "", entryError(name, ErrLimit, "path of %d bytes, %d allowed", len(p), a.limits.PathLen)
	}
	dir, last := path.Split(p)
	up, err := a.dir(dir, name)
	return up, last, err
}

// put makes i what is at the clean path p. A directory keeps what is inside; anything else is replaced.
func (a *assembly) put(p, name string, i *inode) (*node, error) {
	if p == "" {
		if !i.isDir() {
			return nil, entryError(name, ErrBadEntry, "the root must be a directory")
		}
		a.root.ino, a.root.implied = i, false
		return a.root, nil
	}
	up, last, err := a.place(p, name)
	if err != nil {
		return nil, err
	}
	return a.add(up, last, i, name)
}

func (a *assembly) add(up *node, last string, i *inode, name string) (*node, error) {
	if n := up.kids[last]; n != nil {
		n.become(i)
		return n, nil
	}
	n := &node{name: last, up: up, ino: i, depth: up.depth + 1, pathLen: up.pathLen + 1 + len(last)}
	if a.names++; a.names > a.limits.Entries {
		return nil, entryError(name, ErrLimit, "more than %d names", a.limits.Entries)
	}
	switch {
	case len(last) > maxName:
		return nil, entryError(name, ErrLimit, "name of %d bytes, %d allowed", len(last), maxName)
	case n.depth > a.limits.Depth:
		return nil, entryError(name, ErrLimit, "more than %d directories deep", a.limits.Depth)
	case n.pathLen > a.limits.PathLen+1:
		return nil, entryError(name, ErrLimit, "path of %d bytes, %d allowed", n.pathLen-1, a.limits.PathLen)
	}
	if i.isDir() {
		n.kids = map[string]*node{}
	}
	up.kids[last] = n
	return n, nil
}

// become makes i what is at n. The last of several entries counts.
func (n *node) become(i *inode) {
	n.implied = false
	switch {
	case !i.isDir():
		n.kids, n.opaque = nil, false
	case n.kids == nil:
		// What stood here for a while removed the directory below.
		n.kids, n.whited = map[string]*node{}, true
	}
	n.ino = i
}

// whiteout takes note that the clean path p is gone from the layers below. What this layer has there stays, whichever came
// first.
func (a *assembly) whiteout(p, name string) error {
	up, last, err := a.place(p, name)
	if err != nil {
		return err
	}
	n := up.kids[last]
	if n == nil {
		if n, err = a.add(up, last, &inode{mode: fstree.ModeChar}, name); err != nil {
			return err
		}
	}
	n.whited, n.implied = true, false
	return nil
}

// hide makes the directory p opaque.
func (a *assembly) hide(p, name string) error {
	n, err := a.dir(p, name)
	if err != nil {
		return err
	}
	n.opaque = true
	return nil
}

// link makes the clean path p another name of what is at target, a clean path too.
func (a *assembly) link(p, target, name string) error {
	i := a.parked[target]
	if i == nil {
		n, err := a.find(target, name)
		if err != nil {
			return err
		}
		i = n.ino
	}
	if i.isDir() || i.isWhiteout() {
		return entryError(name, ErrBadEntry, "hard link to %q, which is no file", shorten(target))
	}
	n, err := a.put(p, name, i)
	if err != nil {
		return err
	}
	if n.ino != i {
		return fmt.Errorf("link %q: lost its file", name)
	}
	return nil
}

// find returns what is at the clean path p. Nothing is made.
func (a *assembly) find(p, name string) (*node, error) {
	dir, last := path.Split(p)
	missing := entryError(name, ErrBadEntry, "hard link to %q, which is not in the layer", shorten(p))
	cur := a.root
	for links := 0; dir != ""; {
		var c string
		c, dir, _ = strings.Cut(dir, "/")
		if c == "" || c == "." {
			continue
		}
		if c == ".." {
			if cur.up != nil {
				cur = cur.up
			}
			continue
		}
		next := cur.kids[c]
		switch {
		case next == nil:
			return nil, missing
		case next.ino.linkname != "":
			if links++; links > 40 {
				return nil, missing
			}
			if strings.HasPrefix(next.ino.linkname, "/") {
				cur = a.root
			}
			dir = next.ino.linkname + "/" + dir
		default:
			cur = next
		}
	}
	if n := cur.kids[last]; n != nil {
		return n, nil
	}
	return nil, missing
}
