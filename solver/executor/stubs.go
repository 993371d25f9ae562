package executor

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// stubs remembers what was made inside one writable mount only so that something could be mounted there, and takes it away
// again: from the upper once nothing is mounted, so that the layer holds what the step did and nothing else. In a volume stubs
// stay: to remove one while another step has something mounted on it would end that mount.
//
// A stub is left where it is if the step changed it. The time of a directory that changed only because a stub came and went is
// put back, and a directory that is in the upper only because it was copied up for a stub goes too.
type stubs struct {
	// prefix leads from the root of the upper to what is mounted, if that is only a part.
	prefix  string
	made    []*stub
	parents map[string]*parent // of stubs, and all directories above
}

// stub is one file or directory that was made.
type stub struct {
	rel string
	dir bool
	// remove says that it may go: it is a mount point, or a parent made for one and those are unwanted too.
	remove bool
	// keep says that it stays whatever becomes of the others, as old as the directory it is in: a layer is not to tell when it was made.
	keep    bool
	settled attrs
	gone    bool
	aged    bool // kept, and as old as what it is in
}

// parent is a directory that was there before.
type parent struct {
	before, settled attrs
}

func newStubs() *stubs { return &stubs{parents: map[string]*parent{}} }

// newFile is a file or directory to be made.
type newFile struct {
	mode         uint32 // with S_IFDIR or S_IFREG
	uid, gid     int
	remove, keep bool // see stub
}

// make makes name in the directory at and takes note of it.
func (s *stubs) make(at *place, name string, f newFile) error {
	if err := s.noteParents(at); err != nil {
		return err
	}
	dir := f.mode&unix.S_IFMT == unix.S_IFDIR
	err := f.makeAt(at.fd, name, dir)
	if errors.Is(err, fs.ErrExist) {
		return nil // another step was faster, in a volume that both have
	}
	if err != nil {
		return &fs.PathError{Op: "make", Path: path.Join(at.path, name), Err: err}
	}
	s.made = append(s.made, &stub{rel: path.Join(s.prefix, at.rel, name), dir: dir, remove: f.remove, keep: f.keep})
	return nil
}

// base says that only the directory or file shown, below or equal to root, is mounted. It is nil-safe.
func (s *stubs) base(root, shown string) {
	if s != nil {
		s.prefix = strings.TrimPrefix(strings.TrimPrefix(shown, root), "/")
	}
}

func (f newFile) makeAt(in int, name string, dir bool) error {
	var err error
	if dir {
		err = unix.Mkdirat(in, name, 0o700)
	} else {
		err = unix.Mknodat(in, name, unix.S_IFREG|0o600, 0)
	}
	if err != nil {
		return err
	}
	// In a volume another step may by now have put something else there: owner and mode are set on what was opened, and
	// only if it is of the kind that was made. The mode is set apart because the umask would count when making it.
	fd, err := openIn(in, name)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if (st.Mode^f.mode)&unix.S_IFMT != 0 {
		return unix.ESTALE
	}
	if err := unix.Fchownat(fd, "", f.uid, f.gid, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), f.mode&^unix.S_IFMT)
}

// noteParents remembers how at and the directories above it were, unless that is known or they are stubs themselves.
func (s *stubs) noteParents(at *place) error {
	for rel, up := path.Join(s.prefix, at.rel), "."; ; rel, up = path.Dir(rel), path.Join(up, "..") {
		if rel == "." {
			rel = ""
		}
		if s.parents[rel] == nil && !s.isStub(rel) {
			// Going up by ".." is safe here: nothing runs in the view yet, and rel says how often.
			a, err := attrsAt(at.fd, up)
			if err != nil {
				return fmt.Errorf("look at %s: %w", at.path, err)
			}
			s.parents[rel] = &parent{before: a}
		}
		if rel == "" {
			return nil
		}
	}
}

func (s *stubs) isStub(rel string) bool {
	return slices.ContainsFunc(s.made, func(m *stub) bool { return m.rel == rel })
}

// settle takes note of how things are now that every stub is made. root is the mount.
func (s *stubs) settle(root string) error {
	if len(s.made) == 0 {
		return nil
	}
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: root, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	for _, m := range s.made {
		if m.settled, err = attrsBelow(fd, m.rel); err != nil {
			return fmt.Errorf("look at mount point %s: %w", m.rel, err)
		}
	}
	for rel, p := range s.parents {
		if p.settled, err = attrsBelow(fd, rel); err != nil {
			return fmt.Errorf("look at %s: %w", rel, err)
		}
	}
	return nil
}

// clean removes the stubs from dir, the upper of the mount, which is no longer mounted.
func (s *stubs) clean(dir string) error {
	if len(s.made) == 0 {
		return nil
	}
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	defer func() { _ = unix.Close(root) }()
	for _, m := range slices.Backward(s.made) {
		if m.keep {
			if err := s.age(root, m); err != nil {
				return fmt.Errorf("restore time of mount point %s: %w", m.rel, err)
			}
		}
		if !m.remove {
			continue
		}
		if err := m.clean(root); err != nil {
			return fmt.Errorf("remove mount point %s: %w", m.rel, err)
		}
	}
	deepestFirst := slices.SortedFunc(maps.Keys(s.parents), func(a, b string) int { return len(split(b)) - len(split(a)) })
	for _, rel := range deepestFirst {
		if err := s.restore(root, rel); err != nil {
			return fmt.Errorf("restore %s: %w", rel, err)
		}
	}
	return nil
}

func (m *stub) clean(root int) error {
	now, err := attrsBelow(root, m.rel)
	if isGone(err) {
		m.gone = true
		return nil
	}
	if err != nil {
		return err
	}
	if !now.equal(m.settled) {
		return nil
	}
	removed, err := removeQuietly(root, m.rel, m.dir)
	m.gone = removed
	return err
}

// age gives a kept directory the time of the one it is in, unless the step changed it.
func (s *stubs) age(root int, m *stub) error {
	now, err := attrsBelow(root, m.rel)
	if isGone(err) {
		m.gone = true
		return nil
	}
	p := s.parents[dirOf(m.rel)]
	if err != nil || p == nil || !now.equal(m.settled) {
		return err
	}
	m.aged = true
	return setTime(root, m.rel, p.before.mtime)
}

// restore puts the time of a directory back if the stubs are all that happened to it, and removes it if it is in the upper for
// no other reason.
func (s *stubs) restore(root int, rel string) error {
	p := s.parents[rel]
	now, err := attrsBelow(root, rel)
	if isGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, m := range s.made {
		if dirOf(m.rel) == rel && !m.gone && !m.aged {
			return nil
		}
	}
	if now.mtime == p.settled.mtime && now.mtime != p.before.mtime {
		if err := setTime(root, rel, p.before.mtime); err != nil {
			return err
		}
		now.mtime = p.before.mtime
	}
	if rel == "" || !now.equal(p.before) {
		return nil
	}
	opaque, err := isOpaque(root, rel)
	if err != nil || opaque {
		return err
	}
	_, err = removeQuietly(root, rel, true)
	return err
}

// removeQuietly removes a file or an empty directory without leaving a trace in the time of its parent.
func removeQuietly(root int, rel string, dir bool) (removed bool, err error) {
	in, err := openBelow(root, dirOf(rel))
	if err != nil {
		return false, err
	}
	defer func() { _ = unix.Close(in) }()
	var st unix.Stat_t
	if err := unix.Fstat(in, &st); err != nil {
		return false, err
	}
	flags := 0
	if dir {
		flags = unix.AT_REMOVEDIR
	}
	err = unix.Unlinkat(in, path.Base(rel), flags)
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, setTime(in, "", st.Mtim)
}

func dirOf(rel string) string {
	if d := path.Dir(rel); d != "." {
		return d
	}
	return ""
}
