package executor_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipwaybuild/slipway/solver/executor"
)

// outside makes a directory of the host that no step may see or change, and returns a check that none did.
func outside(t *testing.T) (dir string, unchanged func()) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "passwd"), []byte("root:x:0:0::/pwned:/bin/sh\neve:x:666:666::/pwned:/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, func() {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) != 1 {
			t.Errorf("host directory holds %v: something was made outside", entries)
		}
	}
}

func TestPasswdIsNeverTheHosts(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	dir, unchanged := outside(t)
	defer unchanged()
	for name, link := range map[string]string{
		"absolute": filepath.Join(dir, "passwd"),
		"relative": strings.Repeat("../", 40) + strings.TrimPrefix(dir, "/") + "/passwd",
		"proc":     "/proc/1/root" + dir + "/passwd",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := h.on(t, file{name: "etc/passwd", link: link})
			h.sh(t, "true", func(s *executor.Spec) { s.Mounts[0].Layers, s.User = base, "eve" }).invalid(t, "eve")
			h.sh(t, "echo $HOME", func(s *executor.Spec) { s.Mounts[0].Layers = base }).says(t, "/root\n")
		})
	}
	t.Run("a directory", func(t *testing.T) {
		t.Parallel()
		base := h.layer(t, append(busyboxFiles(t)[:3], file{name: "etc/passwd/", mode: 0o755}, file{name: "bin/sh", link: "busybox"})...)
		h.sh(t, "true", func(s *executor.Spec) { s.Mounts[0].Layers = base }).invalid(t, "passwd", "not a regular file")
	})
}

func TestMountDestinationsStayInside(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	dir, unchanged := outside(t)
	defer unchanged()
	for _, c := range []struct{ name, link, dest, where string }{
		{"absolute link", dir, "/l/new", dir + "/new"},
		{"relative link", strings.Repeat("../", 40) + strings.TrimPrefix(dir, "/"), "/l/new", dir + "/new"},
		{"link as the last name", dir + "/new", "/l", dir + "/new"},
		{"link to the root", "/", "/l/new", "/new"},
		{"link through the root", "../../", "/l/new", "/new"},
		{"dots", "opt", "/../../opt/new", "/opt/new"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			base := h.on(t, file{name: "l", link: c.link})
			h.sh(t, "echo x >"+c.where+"/f && ls "+c.where, func(s *executor.Spec) {
				s.Mounts[0].Layers = base
				s.Mounts = append(s.Mounts, executor.Mount{Dest: c.dest, Type: executor.MountTmpfs})
				s.RemoveMountStubs = true
			}).says(t, "f\n").wrote(t, h)
			unchanged()
		})
	}
	t.Run("a link that is the root", func(t *testing.T) {
		t.Parallel()
		base := h.on(t, file{name: "l", link: "/"})
		h.sh(t, "true", func(s *executor.Spec) {
			s.Mounts[0].Layers = base
			s.Mounts = append(s.Mounts, executor.Mount{Dest: "/l", Type: executor.MountTmpfs})
		}).invalid(t, "root")
	})
	t.Run("a loop", func(t *testing.T) {
		t.Parallel()
		base := h.on(t, file{name: "l", link: "/l"})
		h.sh(t, "true", func(s *executor.Spec) {
			s.Mounts[0].Layers = base
			s.Mounts = append(s.Mounts, executor.Mount{Dest: "/l/x", Type: executor.MountTmpfs})
		}).invalid(t, "symbolic links")
	})
	for _, name := range []string{"proc", "sys", "dev"} {
		t.Run(name+" as a link", func(t *testing.T) {
			t.Parallel()
			base := h.on(t, file{name: name, link: dir})
			h.sh(t, "true", func(s *executor.Spec) { s.Mounts[0].Layers = base }).invalid(t, "/"+name)
		})
	}
	t.Run("etc as a link", func(t *testing.T) {
		t.Parallel()
		base := h.layer(t, append(busyboxFiles(t)[:2], file{name: "bin/sh", link: "busybox"}, file{name: "etc", link: dir})...)
		h.sh(t, "/bin/busybox head -n 1 /etc/hosts", func(s *executor.Spec) { s.Mounts[0].Layers = base }).
			says(t, "127.0.0.1\tlocalhost buildkitsandbox\n").wrote(t, h)
	})
	t.Run("resolv.conf as a link to nowhere", func(t *testing.T) {
		t.Parallel()
		base := h.on(t, file{name: "etc/resolv.conf", link: "../run/systemd/resolve/stub-resolv.conf"})
		h.sh(t, "grep -c nameserver /etc/resolv.conf | /bin/busybox tail -n 1", func(s *executor.Spec) { s.Mounts[0].Layers = base }).
			ok(t).wrote(t, h)
	})
}

func TestCwdStaysInside(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	dir, unchanged := outside(t)
	defer unchanged()
	base := h.on(t, file{name: "l", link: dir})
	h.sh(t, "/bin/busybox pwd -P", func(s *executor.Spec) { s.Mounts[0].Layers, s.Cwd = base, "/l/work" }).says(t, dir+"/work\n")
	h.sh(t, "pwd", func(s *executor.Spec) { s.Cwd = "/../../opt/../work" }).says(t, "/work\n").wrote(t, h, "work/")
}

func TestSelectorsStayInside(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	dir, unchanged := outside(t)
	defer unchanged()
	src := h.layer(t,
		file{name: "d/", mode: 0o755},
		file{name: "d/f", data: "mine", mode: 0o644},
		file{name: "abs", link: dir},
		file{name: "rel", link: "d/../../../d"},
		file{name: "loop", link: "loop"},
	)
	for _, sel := range []string{"d", "/d", "../../d", "./d/../d/", "rel"} {
		h.sh(t, "cat /m/f", with(executor.Mount{Dest: "/m", Type: executor.MountBind, ReadOnly: true, Layers: src, Selector: sel})).says(t, "mine")
	}
	for _, sel := range []string{"abs", "abs/passwd", "loop", "d/f/x", "none"} {
		h.sh(t, "true", with(executor.Mount{Dest: "/m", Type: executor.MountBind, ReadOnly: true, Layers: src, Selector: sel})).invalid(t, "/m")
	}
}
