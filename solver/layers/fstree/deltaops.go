package fstree

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
)

// Put makes e, replacing what is at e.Path. A directory put over a directory takes e's attributes and keeps what is inside;
// remove it first to replace all of it. The parent must exist. open is nil for anything but a regular file, and may be for an
// empty one. An e with Hardlink set is [Delta.Link] and takes everything from there.
func (d *Delta) Put(ctx context.Context, e Entry, open OpenFunc) error {
	if e.Hardlink != "" {
		return d.Link(ctx, e.Hardlink, e.Path)
	}
	if e.Whiteout {
		return pathError("put", e.Path, fs.ErrInvalid)
	}
	if e.IsRegular() && open == nil {
		if e.Size != 0 {
			return pathError("put", e.Path, fs.ErrInvalid)
		}
		open = Bytes(nil)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.put(ctx, e, open)
}

// Mkdir makes the directory e; fs.ErrExist if there is something of that name.
func (d *Delta) Mkdir(ctx context.Context, e Entry) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mkdir(ctx, e)
}

// MkdirAll makes the directory e and every one missing above it, all with the attributes of e. What exists stays as it is;
// [ErrNotDir] if that is no directory.
func (d *Delta) MkdirAll(ctx context.Context, e Entry) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range len(e.Path) + 1 {
		if i < len(e.Path) && e.Path[i] != '/' {
			continue
		}
		have, _, err := d.stat(ctx, e.Path[:i])
		if missing(err) {
			one := e
			one.Path = e.Path[:i]
			err = d.mkdir(ctx, one)
		} else if err == nil && !have.IsDir() {
			err = pathError("mkdir", e.Path[:i], ErrNotDir)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *Delta) mkdir(ctx context.Context, e Entry) error {
	if _, _, err := d.stat(ctx, e.Path); err == nil {
		return pathError("mkdir", e.Path, fs.ErrExist)
	} else if !missing(err) {
		return err
	}
	e.Mode = e.Mode&^ModeType | ModeDir
	return d.put(ctx, e, nil)
}

// Update changes attributes of what is at path: mode bits, owner, time, extended attributes. What else do changes is ignored. A
// file of the base becomes part of the changes, content and all.
func (d *Delta) Update(ctx context.Context, path string, do func(*Entry)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := d.own(ctx, path)
	if err != nil {
		return err
	}
	e := f.Entry
	do(&e)
	f.Mode = f.Mode&ModeType | e.Mode&^ModeType
	f.UID, f.GID, f.ModTime, f.Xattrs = e.UID, e.GID, e.ModTime, e.Xattrs
	return nil
}

// Remove removes a name. A directory must be empty.
func (d *Delta) Remove(ctx context.Context, path string) error {
	es, err := d.ReadDir(ctx, path)
	if err == nil && len(es) > 0 {
		return pathError("remove", path, ErrNotEmpty)
	}
	if err != nil && !errors.Is(err, ErrNotDir) {
		return err
	}
	return d.RemoveAll(ctx, path)
}

// RemoveAll removes a name and all that is inside. Where there is nothing it does nothing. Of the root only what is inside is
// removed.
func (d *Delta) RemoveAll(ctx context.Context, path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if path == "" {
		es, err := d.base.ReadDir(ctx, "")
		if err != nil {
			return err
		}
		d.root.forget("")
		d.root.kids = nil
		for _, e := range es {
			d.root.kid(e.Name()).state = gone
		}
		return nil
	}
	if _, _, err := d.stat(ctx, path); missing(err) {
		return nil
	} else if err != nil {
		return err
	}
	up, shows, err := d.dir(ctx, parent(path))
	if err != nil {
		return err
	}
	inBase, _, err := d.baseHas(ctx, path, shows)
	if err != nil {
		return err
	}
	name := base(path)
	if c := up.kids[name]; c != nil {
		c.forget(path)
		delete(up.kids, name)
	}
	if inBase {
		up.kid(name).state = gone
	}
	return nil
}

// Link makes newname one more name of the file at oldname, replacing what is there. A file of the base becomes part of the
// changes, content and all, since a layer cannot link to what is in another.
func (d *Delta) Link(ctx context.Context, oldname, newname string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := d.own(ctx, oldname)
	if err != nil {
		return err
	}
	if f.IsDir() {
		return pathError("link", oldname, ErrIsDir)
	}
	if oldname == newname {
		return nil
	}
	c, err := d.replace(ctx, newname)
	if err != nil {
		return err
	}
	c.file = f
	f.names = append(f.names, newname)
	return nil
}

// put is Put with the lock held.
func (d *Delta) put(ctx context.Context, e Entry, open OpenFunc) error {
	path := e.Path
	f := &changed{Entry: e, open: open}
	f.Path, f.Hardlink, f.Implied, f.Opaque = "", "", false, false
	if !e.IsDir() {
		c, err := d.replace(ctx, path)
		if err != nil {
			return err
		}
		f.names = []string{path}
		c.file = f
		return nil
	}
	have, a, err := d.stat(ctx, path)
	if err == nil && have.IsDir() {
		if a.c == nil {
			if a.c, _, err = d.dir(ctx, path); err != nil {
				return err
			}
		}
		a.c.state, a.c.file = made, f
		return nil
	}
	if err != nil && !missing(err) {
		return err
	}
	if path == "" {
		return pathError("put", path, ErrNotDir)
	}
	c, err := d.replace(ctx, path)
	if err != nil {
		return err
	}
	_, inBase, err := d.baseHas(ctx, path, true)
	if err != nil {
		return err
	}
	c.file, c.cut, c.hides = f, true, inBase && !d.cutAbove(path)
	return nil
}

// replace makes room for something new at path and returns where it goes.
func (d *Delta) replace(ctx context.Context, path string) (*change, error) {
	if path == "" {
		return nil, pathError("put", path, ErrIsDir)
	}
	up, _, err := d.dir(ctx, parent(path))
	if err != nil {
		return nil, err
	}
	c := up.kid(base(path))
	c.forget(path)
	*c = change{state: made}
	return c, nil
}

// own makes what is at path part of the changes.
func (d *Delta) own(ctx context.Context, path string) (*changed, error) {
	e, a, err := d.stat(ctx, path)
	if err != nil {
		return nil, err
	}
	if a.c != nil && a.c.state == made {
		return a.c.file, nil
	}
	var open OpenFunc
	if e.IsRegular() {
		open = FromTree(d.base, path)
	}
	if err := d.put(ctx, e, open); err != nil {
		return nil, err
	}
	if a, err = d.find(path); err != nil {
		return nil, notExist("stat", path)
	}
	return a.c.file, nil
}

// dir returns the change of the directory at path, which must exist, and whether the base shows inside.
func (d *Delta) dir(ctx context.Context, path string) (c *change, shows bool, err error) {
	e, a, err := d.stat(ctx, path)
	if err != nil {
		return nil, false, err
	}
	if !e.IsDir() {
		return nil, false, pathError("stat", path, ErrNotDir)
	}
	if a.c != nil {
		return a.c, a.base && !a.c.cut, nil
	}
	c = d.root
	for name := range strings.SplitSeq(path, "/") {
		c = c.kid(name)
	}
	return c, true, nil
}

// kid returns the change of a name in c, a touched one if there was none.
func (c *change) kid(name string) *change {
	k := c.kids[name]
	if k == nil {
		if c.kids == nil {
			c.kids = map[string]*change{}
		}
		k = &change{}
		c.kids[name] = k
	}
	return k
}

// forget takes the names at and below path, where c is, from their files.
func (c *change) forget(path string) {
	if c.file != nil && len(c.file.names) > 0 {
		c.file.names = slices.DeleteFunc(c.file.names, func(n string) bool { return n == path })
	}
	for name, k := range c.kids {
		k.forget(join(path, name))
	}
}

// baseHas says whether the base has something at path, and whether a directory. shows is false if nothing of it would show.
func (d *Delta) baseHas(ctx context.Context, path string, shows bool) (has, isDir bool, err error) {
	if !shows {
		return false, false, nil
	}
	e, err := d.base.Stat(ctx, path)
	if missing(err) {
		return false, false, nil
	}
	return err == nil, e.IsDir(), err
}

// cutAbove says whether the base shows nothing in the directory that path is in.
func (d *Delta) cutAbove(path string) bool {
	a, err := d.find(parent(path))
	return err != nil || !a.base || a.c != nil && a.c.cut
}
