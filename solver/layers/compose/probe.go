//go:build linux

package compose

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Caps is what the host can do, found by trying.
type Caps struct {
	// Erofs is nil if files can be mounted as EROFS and the detached mounts be lowers; else it says why not.
	Erofs error
	// Legacy says that overlays need mount(2).
	Legacy bool
	// Index and Volatile say that overlays take these options.
	Index, Volatile bool
	// Userxattr says that overlays are possible only with marks that need no privilege.
	Userxattr bool
}

// errOldKernel keeps the trial mount from kernels on which it would be dangerous: before 6.13 a file-backed image with blocks
// smaller than a page could bring the machine down (CVE-2024-56750).
var errOldKernel = errors.New("detached mounts as overlay lowers need kernel 6.15")

// Probe tries, in the empty directory dir, what the host can do with layers kept there. images are two small EROFS images
// with different contents. An error means that overlays do not work at all.
func Probe(dir string, images [2]string) (Caps, error) {
	var caps Caps
	p := prober{dir: dir}
	if err := p.plain(&caps); err != nil {
		return caps, fmt.Errorf("overlay mounts do not work here: %w", err)
	}
	caps.Index = p.overlay(Overlay{Legacy: caps.Legacy, Userxattr: caps.Userxattr, Index: true}) == nil
	caps.Volatile = p.overlay(Overlay{Legacy: caps.Legacy, Userxattr: caps.Userxattr, Volatile: true}) == nil
	switch {
	case caps.Legacy || !kernelAtLeast(6, 15):
		caps.Erofs = errOldKernel
	default:
		caps.Erofs = p.erofs(images)
	}
	return caps, nil
}

// plain finds a way to mount an overlay at all.
func (p *prober) plain(caps *Caps) error {
	var errs []error
	for _, way := range []Caps{{}, {Legacy: true}, {Userxattr: true}} {
		err := p.overlay(Overlay{Legacy: way.Legacy, Userxattr: way.Userxattr})
		if err == nil {
			caps.Legacy, caps.Userxattr = way.Legacy, way.Userxattr
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

type prober struct {
	dir string
	n   int
}

// overlay tries o with two lower directories.
func (p *prober) overlay(o Overlay) error {
	var lowers [2]int
	for i := range lowers {
		path := filepath.Join(p.dir, fmt.Sprintf("lower%d", i))
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		fd, err := OpenDir(path)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }() // O_PATH
		lowers[i] = fd
	}
	return p.mount(o, lowers[:], nil)
}

// erofs tries an overlay on two images and on a directory, as stacks have them.
func (p *prober) erofs(images [2]string) error {
	var lowers []int
	for _, image := range images {
		fd, err := Erofs(image)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }() // a read-only mount
		lowers = append(lowers, fd)
	}
	fd, err := OpenDir(filepath.Join(p.dir, "lower0"))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }() // O_PATH
	return p.mount(Overlay{}, append(lowers, fd), func(root string) error {
		_, err := os.ReadDir(root)
		return err
	})
}

// mount mounts o over lowers with a new upper, writes a file, checks, and unmounts.
func (p *prober) mount(o Overlay, lowers []int, check func(root string) error) (err error) {
	p.n++
	base := filepath.Join(p.dir, fmt.Sprintf("try%d", p.n))
	for _, d := range []string{"upper", "work", "root"} {
		if err := os.MkdirAll(filepath.Join(base, d), 0o755); err != nil {
			return err
		}
	}
	root := filepath.Join(base, "root")
	o.Lowers, o.Upper, o.Work = lowers, filepath.Join(base, "upper"), filepath.Join(base, "work")
	if err := o.Mount(root); err != nil {
		return err
	}
	defer func() {
		_, uerr := Unmount(root)
		err = errors.Join(err, uerr)
	}()
	if err := os.WriteFile(filepath.Join(root, "probe"), []byte("x"), 0o600); err != nil {
		return err
	}
	if check != nil {
		return check(root)
	}
	return nil
}

func kernelAtLeast(major, minor int) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var a, b int
	if n, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b); n != 2 || err != nil {
		return false
	}
	return a > major || a == major && b >= minor
}
