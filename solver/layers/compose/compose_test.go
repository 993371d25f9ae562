package compose

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
}

func lowers(t *testing.T, dir string, n int) []int {
	t.Helper()
	var fds []int
	for i := range n {
		path := filepath.Join(dir, "lower", string(rune('a'+i)))
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(path, "same"), []byte{byte('a' + i)}, 0o600); err != nil {
			t.Fatal(err)
		}
		fd, err := OpenDir(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		fds = append(fds, fd)
	}
	return fds
}

func TestOverlayTopFirst(t *testing.T) {
	needRoot(t)
	for name, legacy := range map[string]bool{"descriptors": false, "legacy": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			target := filepath.Join(dir, "root")
			if err := os.Mkdir(target, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := (Overlay{Lowers: lowers(t, dir, 3), Legacy: legacy}).Mount(target); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(filepath.Join(target, "same"))
			if err != nil || string(data) != "a" {
				t.Errorf("got %q, %v", data, err)
			}
			if err := os.WriteFile(filepath.Join(target, "new"), nil, 0o600); !errors.Is(err, unix.EROFS) {
				t.Errorf("write: %v", err)
			}
			if busy, err := Unmount(target); busy || err != nil {
				t.Errorf("unmount: %v %v", busy, err)
			}
		})
	}
}

func TestUnmountBusy(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	target := filepath.Join(dir, "root")
	if err := os.Mkdir(target, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := (Overlay{Lowers: lowers(t, dir, 2)}).Mount(target); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(target, "same"))
	if err != nil {
		t.Fatal(err)
	}
	if busy, err := Unmount(target); !busy || err != nil {
		t.Errorf("unmount: %v %v", busy, err)
	}
	data := make([]byte, 1)
	if _, err := f.Read(data); err != nil || data[0] != 'a' {
		t.Errorf("its last user reads %q, %v", data, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// TestKernelSaysWhy: errno alone is useless.
func TestKernelSaysWhy(t *testing.T) {
	needRoot(t)
	c, err := openContext("overlay")
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	err = c.set("redirect_dir", "perhaps")
	var why *Error
	if !errors.As(err, &why) || why.Log == "" || !strings.Contains(err.Error(), "redirect_dir=perhaps") {
		t.Errorf("got %v", err)
	}
	path := filepath.Join(t.TempDir(), "no image")
	if err := os.WriteFile(path, make([]byte, 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Erofs(path); !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "mount erofs") {
		t.Errorf("got %v", err)
	}
}

func TestTooManyLowers(t *testing.T) {
	if err := (Overlay{Lowers: make([]int, MaxLowers+1)}).Mount("/nowhere"); err == nil {
		t.Error("no error")
	}
}

func TestKernelAtLeast(t *testing.T) {
	if !kernelAtLeast(2, 6) || kernelAtLeast(999, 0) {
		t.Error("cannot read the kernel's version")
	}
}
