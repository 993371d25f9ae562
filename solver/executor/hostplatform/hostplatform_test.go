package hostplatform

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

func host(t *testing.T, configured []string, detected ...string) *Host {
	t.Helper()
	h, err := New(configured)
	if err != nil {
		t.Fatal(err)
	}
	h.detect = func() []ocispecs.Platform {
		var list []ocispecs.Platform
		for _, d := range detected {
			list = append(list, platforms.MustParse(d))
		}
		return list
	}
	return h
}

func names(list []ocispecs.Platform) string {
	var s []string
	for _, p := range list {
		s = append(s, platforms.FormatAll(p))
	}
	return strings.Join(s, " ")
}

func TestListPutsConfiguredFirst(t *testing.T) {
	t.Parallel()
	h := host(t, []string{"linux/riscv64", "linux/amd64"}, "linux/amd64", "linux/amd64/v2", "linux/arm64")
	if got, want := names(h.List()), "linux/riscv64 linux/amd64 linux/amd64/v2 linux/arm64"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := platforms.Format(h.Default()); got != "linux/riscv64" {
		t.Errorf("default is %s", got)
	}
	if _, err := New([]string{"linux/amd64/v1/x/y"}); err == nil {
		t.Error("a platform that is none was taken")
	}
}

func TestRuns(t *testing.T) {
	t.Parallel()
	h := host(t, nil, "linux/amd64", "linux/amd64/v2", "linux/arm64", "linux/arm")
	for p, want := range map[string]bool{
		"linux/amd64": true, "linux/amd64/v2": true, "linux/amd64/v3": false, "linux/386": true, "linux/arm64": true,
		"linux/arm/v7": true, "linux/riscv64": false, "windows/amd64": false,
	} {
		if got := h.Runs(platforms.Normalize(platforms.MustParse(p))); got != want {
			t.Errorf("%s runs: %v, want %v", p, got, want)
		}
	}
}

func TestEmulatorByHand(t *testing.T) {
	t.Parallel()
	h := host(t, nil, "linux/amd64")
	h.lookPath = func(name string) (string, error) {
		if name == "buildkit-qemu-aarch64" {
			return "/x/" + name, nil
		}
		return "", errors.New("not found")
	}
	if path, ok := h.Emulator(platforms.MustParse("linux/arm64")); !ok || path != "/x/buildkit-qemu-aarch64" {
		t.Errorf("got %q, %v", path, ok)
	}
	if _, ok := h.Emulator(platforms.MustParse("linux/s390x")); ok {
		t.Error("an emulator that is not there was found")
	}
	if msg := h.Missing(platforms.MustParse("linux/s390x")); !strings.Contains(msg, "linux/s390x (it runs those for linux/amd64)") ||
		!strings.Contains(msg, "--install s390x") {
		t.Error(msg)
	}
}

func TestDetect(t *testing.T) {
	h, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	list := h.List()
	if len(list) == 0 || platforms.Format(list[0]) != platforms.Format(platforms.Normalize(platforms.DefaultSpec())) {
		t.Errorf("the host's own platform is not first: %s", names(list))
	}
	t.Log(names(list))
}
