// Package hostplatform tells for which platforms this host runs programs: its own, and those that an emulator is registered for
// with the kernel (binfmt_misc, with the F flag, so that it works inside containers).
//
// Whether that is so is found out by running a tiny program of each platform, by BuildKit's package for it, which also keeps the
// answer for a while (archutil.CacheMaxAge): an emulator may be installed while the daemon runs.
package hostplatform

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/util/archutil"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Host is what platforms a host runs. It is safe for concurrent use.
type Host struct {
	configured []ocispecs.Platform
	detect     func() []ocispecs.Platform
	lookPath   func(string) (string, error)
}

// New returns the platforms of this host. Those of configured, such as "linux/arm64", are listed first whether they were
// found or not: the operator knows.
func New(configured []string) (*Host, error) {
	h := &Host{detect: func() []ocispecs.Platform { return archutil.SupportedPlatforms(true) }, lookPath: exec.LookPath}
	for _, name := range configured {
		p, err := platforms.Parse(name)
		if err != nil {
			return nil, fmt.Errorf("platform %q: %w", name, err)
		}
		h.configured = append(h.configured, platforms.Normalize(p))
	}
	return h, nil
}

// List returns all platforms, without doubles. The first is what a build is for that names none.
func (h *Host) List() []ocispecs.Platform {
	var all []ocispecs.Platform
	seen := map[string]bool{}
	for _, p := range slices.Concat(h.configured, h.detect()) {
		if name := platforms.FormatAll(p); !seen[name] {
			seen[name] = true
			all = append(all, p)
		}
	}
	return all
}

// Default is the platform of a build that names none: the first configured one, else the host's own.
func (h *Host) Default() ocispecs.Platform {
	if len(h.configured) > 0 {
		return h.configured[0]
	}
	return platforms.Normalize(platforms.DefaultSpec())
}

// Runs says whether programs for p run here as they are.
func (h *Host) Runs(p ocispecs.Platform) bool {
	return slices.ContainsFunc(h.List(), func(have ocispecs.Platform) bool { return platforms.Only(have).Match(p) })
}

// Emulator returns an emulator for p that can be run by hand, without the kernel knowing it: BuildKit's builds of qemu, which
// also emulate what a program starts. They are called buildkit-qemu-<architecture> and found in PATH.
func (h *Host) Emulator(p ocispecs.Platform) (path string, ok bool) {
	path, err := h.lookPath("buildkit-qemu-" + qemuName(p.Architecture))
	return path, err == nil
}

// Missing says what p lacks here, for who wants to run it.
func (h *Host) Missing(p ocispecs.Platform) string {
	var have []string
	for _, p := range h.List() {
		have = append(have, platforms.FormatAll(p))
	}
	s := fmt.Sprintf("this host runs no programs for %s (it runs those for %s)", platforms.FormatAll(p), strings.Join(have, ", "))
	if p.OS != "linux" {
		return s
	}
	return s + ": register an emulator with the kernel, for example with `apt-get install qemu-user-static binfmt-support`" +
		" or `docker run --privileged --rm tonistiigi/binfmt --install " + p.Architecture + "`"
}

// qemuName is what qemu calls an architecture.
func qemuName(arch string) string {
	switch arch {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	case "386":
		return "i386"
	case "loong64":
		return "loongarch64"
	case "mips64le":
		return "mips64el"
	}
	return arch
}
