//go:build unix

package filesync

import (
	"context"
	"errors"
	"fmt"
	"io"
	gofs "io/fs"
	"os"
	"path"

	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"
)

// treeWriter writes a tree into a directory. Everything goes through an os.Root, so nothing a daemon sends, and no symlink in
// the directory, leads out of it.
type treeWriter struct {
	root *os.Root
	to   Target
	dirs []*types.Stat // whose mode and time are set in the end, parents first
	kept map[string]struct{}
	// created says of directories made here that nothing can be in them yet.
	created map[string]struct{}
}

func newTreeWriter(to Target) (*treeWriter, error) {
	if err := os.MkdirAll(to.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make target directory: %w", err)
	}
	root, err := os.OpenRoot(to.Dir)
	if err != nil {
		return nil, fmt.Errorf("open target directory: %w", err)
	}
	w := &treeWriter{root: root, to: to, created: map[string]struct{}{}}
	if to.Delete {
		w.kept = map[string]struct{}{}
	}
	return w, nil
}

func (w *treeWriter) close() error { return w.root.Close() }

// receive takes the tree.
func (w *treeWriter) receive(ctx context.Context, stream peerStream) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Every file is asked for: builds with clamped times make different files of equal size and time, so only the contents
	// could tell which of those here can stay.
	want := func(*types.Stat, string) bool { return true }
	t := startTransfer(Request{Want: want}, &msgStream{s: stream}, cancel)
	err := w.take(ctx, t)
	if err != nil {
		t.r.refuse(err)
		return err // the goroutines end with the stream, when our caller returns
	}
	if err := t.Close(); err != nil {
		return err
	}
	return w.finish()
}

// msgStream is the server's end as a packetStream. It ends with FIN: senders need not half-close after it.
type msgStream struct {
	s   peerStream
	fin bool
}

func (m *msgStream) Send(p *types.Packet) error { return m.s.SendMsg(p) }

// CloseSend does nothing: a server's side of a stream ends by returning.
func (m *msgStream) CloseSend() error { return nil }

func (m *msgStream) Recv() (*types.Packet, error) {
	if m.fin {
		return nil, io.EOF
	}
	p := new(types.Packet)
	err := m.s.RecvMsg(p)
	m.fin = err == nil && p.Type == types.PACKET_FIN
	return p, err
}

func (w *treeWriter) take(ctx context.Context, t *Transfer) error {
	for {
		f, err := t.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := w.put(f); err != nil {
			return fmt.Errorf("write %q: %w", f.Stat.Path, err)
		}
	}
}

// put writes one entry.
func (w *treeWriter) put(f *File) error {
	st := f.Stat
	if w.kept != nil {
		w.kept[st.Path] = struct{}{}
	}
	mode := gofs.FileMode(st.Mode)
	switch {
	case mode.IsDir():
		return w.putDir(st)
	case mode&gofs.ModeSymlink != 0:
		return w.replace(st, func(name string) error { return w.root.Symlink(st.Linkname, name) })
	case st.Linkname != "":
		return w.replace(st, func(name string) error { return w.root.Link(st.Linkname, name) })
	case mode.IsRegular():
		return w.replace(st, func(name string) error { return w.putFile(name, st, f.Content) })
	default:
		return w.replace(st, func(name string) error { return w.mknod(name, st) })
	}
}

func (w *treeWriter) putDir(st *types.Stat) error {
	fi, err := w.root.Lstat(st.Path)
	if err == nil && !fi.IsDir() {
		// A symlink to a directory is replaced too: writing through it would write somewhere else.
		if err := w.root.Remove(st.Path); err != nil {
			return err
		}
		err = gofs.ErrNotExist
	}
	if errors.Is(err, gofs.ErrNotExist) {
		if err := w.root.Mkdir(st.Path, 0o700); err != nil {
			return err
		}
		w.created[st.Path] = struct{}{}
	} else if err != nil {
		return err
	} else if fi.Mode().Perm()&0o700 != 0o700 {
		if err := w.root.Chmod(st.Path, fi.Mode().Perm()|0o700); err != nil {
			return err
		}
	}
	w.dirs = append(w.dirs, st)
	return nil
}

// replace makes an entry under a temporary name and moves it into place, so that nobody sees half of it and a running program
// or a hard link of what was there is not written into.
func (w *treeWriter) replace(st *types.Stat, make func(name string) error) error {
	name := st.Path
	if _, fresh := w.created[path.Dir(st.Path)]; !fresh {
		name = path.Join(path.Dir(st.Path), ".slipway-export-"+shortName(path.Base(st.Path)))
		if err := w.root.RemoveAll(name); err != nil {
			return err
		}
	}
	if err := make(name); err != nil {
		return errors.Join(err, w.discard(name))
	}
	if st.Linkname == "" || gofs.FileMode(st.Mode)&gofs.ModeSymlink != 0 {
		if err := w.setMeta(name, st); err != nil {
			return errors.Join(err, w.discard(name))
		}
	}
	if name == st.Path {
		return nil
	}
	if fi, err := w.root.Lstat(st.Path); err == nil && fi.IsDir() {
		if err := w.root.RemoveAll(st.Path); err != nil {
			return errors.Join(err, w.discard(name))
		}
	}
	if err := w.root.Rename(name, st.Path); err != nil {
		return errors.Join(err, w.discard(name))
	}
	// Renaming one name of a file onto another of the same file does nothing, so the temporary name may still be there.
	if st.Linkname != "" && gofs.FileMode(st.Mode).IsRegular() {
		return w.discard(name)
	}
	return nil
}

func (w *treeWriter) discard(name string) error {
	if err := w.root.Remove(name); err != nil && !errors.Is(err, gofs.ErrNotExist) {
		return err
	}
	return nil
}

// shortName keeps a temporary name within the 255 bytes a name may have.
func shortName(base string) string {
	if len(base) > 200 {
		return base[:200]
	}
	return base
}

func (w *treeWriter) putFile(name string, st *types.Stat, content io.Reader) error {
	f, err := w.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// mknod makes a fifo or a device. os.Root has no such call, so it is made relative to the opened directory.
func (w *treeWriter) mknod(name string, st *types.Stat) error {
	dir, err := w.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // only a place
	mode, dev := uint32(unix.S_IFIFO), 0
	switch gofs.FileMode(st.Mode).Type() {
	case gofs.ModeDevice:
		mode = unix.S_IFBLK
	case gofs.ModeDevice | gofs.ModeCharDevice:
		mode = unix.S_IFCHR
	}
	if mode != unix.S_IFIFO {
		dev = int(unix.Mkdev(uint32(st.Devmajor), uint32(st.Devminor)))
	}
	err = mknodAt(int(dir.Fd()), path.Base(name), mode|0o600, dev)
	if errors.Is(err, unix.EPERM) && mode != unix.S_IFIFO {
		return fmt.Errorf("make device: %w (only root can)", err)
	}
	return err
}
