package samehost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Dir is a directory of a client, read with the client's identity. Its methods are safe for concurrent use, but for Close.
type Dir struct {
	file       *os.File
	threads    *threads
	resetOwner bool
	key        string
	stable     map[uint64]bool // by device; whether change times there can be relied on. Written by one walk at a time.
}

func newDir(own identity, a *arrival) (*Dir, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(a.file.Fd()), &st); err != nil {
		return nil, err
	}
	t, err := newThreads(own, a.from)
	if err != nil {
		return nil, err
	}
	return &Dir{
		file: a.file, threads: t, resetOwner: a.flags&flagResetOwner != 0,
		key: fmt.Sprintf("%s@%d:%d", t.id.key(), uint64(st.Dev), st.Ino), //nolint:unconvert // differs by architecture
	}, nil
}

// Close ends reading. It must not be called while something reads.
func (d *Dir) Close() error {
	d.threads.close()
	return d.file.Close()
}

// Key names the directory and who reads it: what was seen in one of the same key is what this client may see in this one.
func (d *Dir) Key() string { return d.key }

// Parallel is how many functions [Dir.Do] runs at a time to some use.
func (d *Dir) Parallel() int {
	n := runtime.GOMAXPROCS(0)
	if !d.threads.same {
		n = min(n, maxThreads)
	}
	return n
}

// Reader opens files while [Dir.Do] runs.
type Reader struct{ d *Dir }

// Do runs f as the client. f must neither keep the reader nor call Do or Select.
func (d *Dir) Do(ctx context.Context, f func(Reader) error) error {
	var err error
	if derr := d.threads.do(ctx, func() { err = f(Reader{d}) }); derr != nil {
		return derr
	}
	return err
}

// State tells a file from what it was: as long as it is equal, so are the contents, if [State.Settled] says that it can tell.
type State struct {
	Dev, Ino     uint64
	Size         int64
	Mtime, Ctime int64 // in nanoseconds
}

func stateOf(st *unix.Stat_t) State {
	return State{
		Dev: uint64(st.Dev), Ino: st.Ino, Size: st.Size, //nolint:unconvert // differs by architecture
		Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano(),
	}
}

// Margins within which a file could change again without its times telling: those of file systems that count in nanoseconds move on
// with the kernel's clock tick, others by up to two seconds.
const (
	fineMargin   = int64(50e6)
	coarseMargin = int64(2_100e6)
)

// Settled says whether a change after now, in nanoseconds since 1970, would show in the state.
func (s State) Settled(now int64) bool {
	margin := fineMargin
	if s.Ctime%1e9 == 0 && s.Mtime%1e9 == 0 {
		margin = coarseMargin
	}
	return now-max(s.Ctime, s.Mtime) > margin
}

// Open opens the regular file at a path below the directory, of which no part may be a link. The caller closes the descriptor. A file that is gone,
// or is something else now, is fs.ErrNotExist.
func (r Reader) Open(path string) (fd int, s State, err error) {
	how := &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS,
	}
	fd, err = openat2(int(r.d.file.Fd()), path, how)
	if err == nil {
		var st unix.Stat_t
		if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			return fd, stateOf(&st), nil
		}
		if err == nil {
			err = unix.ENOENT
		}
		err = errors.Join(err, unix.Close(fd))
	}
	switch {
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EXDEV):
		err = unix.ENOENT
	}
	return -1, State{}, &os.PathError{Op: "open", Path: path, Err: err}
}

// StateOf is the state of an open file.
func StateOf(fd int) (State, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return State{}, os.NewSyscallError("fstat", err)
	}
	return stateOf(&st), nil
}

func openat2(dir int, path string, how *unix.OpenHow) (int, error) {
	for {
		fd, err := unix.Openat2(dir, path, how)
		// A rename somewhere meanwhile makes the kernel unsure whether it stayed beneath.
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}

// reliable are the file systems of this host whose inodes and change times mean what they should. Others may be served by programs
// or other hosts with ideas of their own.
var reliable = map[int64]bool{
	unix.EXT4_SUPER_MAGIC: true, unix.XFS_SUPER_MAGIC: true, unix.BTRFS_SUPER_MAGIC: true, unix.TMPFS_MAGIC: true,
	unix.OVERLAYFS_SUPER_MAGIC: true, unix.F2FS_SUPER_MAGIC: true, 0x2fc12fc1: /* ZFS */ true, 0xca451a4e: /* bcachefs */ true,
}

// isStable says whether states of files on a device can be relied on; dir is the directory that one of them is in.
func (d *Dir) isStable(dev uint64, dir int) bool {
	s, ok := d.stable[dev]
	if !ok {
		var st unix.Stat_t
		if unix.Fstat(dir, &st) != nil || uint64(st.Dev) != dev { //nolint:unconvert // differs by architecture
			return false // something is mounted on the file
		}
		var fs unix.Statfs_t
		s = unix.Fstatfs(dir, &fs) == nil && reliable[int64(fs.Type)] //nolint:unconvert // differs by architecture
		if d.stable == nil {
			d.stable = map[uint64]bool{}
		}
		d.stable[dev] = s
	}
	return s
}
