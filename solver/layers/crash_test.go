package layers_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/layerstest"
)

// crashRoot, in the environment, makes the test binary a process that uses a store until it is killed.
const crashRoot = "LAYERS_TEST_CRASH_ROOT"

func TestMain(m *testing.M) {
	if root := os.Getenv(crashRoot); root != "" {
		if err := untilKilled(root, os.Getenv("LAYERS_TEST_REALISATION")); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	layerstest.Main(m)
}

// untilKilled holds layers, has a mount, an upper and a volume in use, and is in the middle of an import when it says so.
func untilKilled(root, realisation string) error {
	ctx := context.Background()
	s, err := opener(realisation)(ctx, root, nil)
	if err != nil {
		return err
	}
	tb := &testing.B{}
	data, _ := layerstest.Tar(tb, layerstest.Text("x", "1"))
	r, err := s.Import(ctx, bytes.NewReader(data), layers.ImportOptions{})
	if err != nil {
		return err
	}
	if err := s.Hold(ctx, "image", r); err != nil {
		return err
	}
	u, err := s.NewUpper(ctx)
	if err != nil {
		return err
	}
	m, err := s.Compose(ctx, r, u)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(m.Path(), "y"), []byte("y"), 0o600); err != nil {
		return err
	}
	if _, err := s.Compose(ctx, r, nil); err != nil {
		return err
	}
	if _, err := s.Volume(ctx, layers.VolumeOptions{Key: "v", Sharing: layers.Locked, Mode: 0o755}); err != nil {
		return err
	}
	big, _ := layerstest.Tar(tb, layerstest.Text("big", strings.Repeat("big", 1<<20)))
	half := io.MultiReader(bytes.NewReader(big[:len(big)/2]), waiting{})
	_, err = s.Import(ctx, half, layers.ImportOptions{})
	return err
}

// waiting says that all before it was read, and never returns.
type waiting struct{}

func (waiting) Read([]byte) (int, error) {
	fmt.Println("ready")
	select {}
}

func TestKilled(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	for _, realisation := range []string{layers.Erofs, layers.Unpacked} {
		t.Run(realisation, func(t *testing.T) {
			t.Parallel()
			killed(t, realisation)
		})
	}
}

func killed(t *testing.T, realisation string) {
	root := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe) //nolint:gosec // this very binary
	cmd.Env = append(os.Environ(), crashRoot+"="+root, "LAYERS_TEST_REALISATION="+realisation)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 5)
	if _, err := io.ReadFull(out, line); err != nil {
		t.Fatalf("the process to be killed said %q: %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if n := mountsBelow(t, root); n != 2 {
		t.Errorf("%d mounts are left behind, want 2", n)
	}

	s, err := opener(realisation)(t.Context(), root, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	if n := mountsBelow(t, root); n != 0 {
		t.Errorf("%d mounts are left", n)
	}
	for _, dir := range []string{"tmp", "uppers", "mounts"} {
		left, err := os.ReadDir(filepath.Join(root, dir))
		if err != nil || len(left) != 0 {
			t.Errorf("%s: %v %v", dir, left, err)
		}
	}
	r, err := s.Held(t.Context(), "image")
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.Compose(t.Context(), r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(m.Path(), "x")); err != nil || string(data) != "1" {
		t.Errorf("x holds %q, %v", data, err)
	}
	v, err := s.Volume(t.Context(), layers.VolumeOptions{Key: "v", Sharing: layers.Locked})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{m.Close(), r.Release(), v.Release()} {
		if err != nil {
			t.Error(err)
		}
	}
}

func mountsBelow(t *testing.T, root string) int {
	t.Helper()
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(root))
	if err != nil {
		t.Fatal(err)
	}
	return len(mounts)
}
