package executor_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipwaybuild/slipway/solver/executor"
	"github.com/slipwaybuild/slipway/solver/executor/executortest"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// with adds mounts.
func with(mounts ...executor.Mount) func(*executor.Spec) {
	return func(s *executor.Spec) { s.Mounts = append(s.Mounts, mounts...) }
}

func TestNoStubStays(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	svc := executortest.Services{
		Secrets: map[string]string{"s": "v"},
		Agents:  map[string]func(net.Conn){"default": func(c net.Conn) { _ = c.Close() }},
	}
	all := func(dir string) []executor.Mount {
		return []executor.Mount{
			{Dest: dir + "/cache", Type: executor.MountCache, CacheKey: "k" + dir},
			{Dest: dir + "/bind", Type: executor.MountBind, ReadOnly: true, Layers: h.Base, Selector: "opt/full"},
			{Dest: dir + "/file", Type: executor.MountBind, ReadOnly: true, Layers: h.Base, Selector: "etc/passwd"},
			{Dest: dir + "/secret", Type: executor.MountSecret, ID: "s", Mode: 0o400},
			{Dest: dir + "/agent", Type: executor.MountSSH, ID: "default", Mode: 0o600},
			{Dest: dir + "/tmp", Type: executor.MountTmpfs},
		}
	}
	for _, c := range []struct {
		name, script, dir string
		recursive         bool
		want              []string
	}{
		{"in a directory that is there", "true", "/opt/full", false, nil},
		{"in a directory that the step changes", "echo x >/opt/full/new", "/opt/full", false, []string{"opt/", "opt/full/", "opt/full/new"}},
		{"in directories that were made", "true", "/opt/made/for", false, []string{"opt/", "opt/made/", "opt/made/for/"}},
		{"in directories that were made and go too", "true", "/opt/made/for", true, nil},
		{"in a made directory that the step uses", "echo x >/opt/made/for/x", "/opt/made/for", true, []string{"opt/", "opt/made/", "opt/made/for/", "opt/made/for/x"}},
		{"in a made directory that the step changes", "chmod 700 /opt/made/for", "/opt/made/for", true, []string{"opt/", "opt/made/", "opt/made/for/"}},
		{"in the root", "echo x >/new", "", true, []string{"new"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h.shWith(t, c.script, svc, func(s *executor.Spec) {
				s.Mounts = append(s.Mounts, all(c.dir)...)
				s.RemoveMountStubs = c.recursive
			}).wrote(t, h, c.want...)
		})
	}
	t.Run("but those that are to be kept do, and the runtime's do not", func(t *testing.T) {
		t.Parallel()
		b := busyboxFiles(t)[1]
		r := h.sh(t, "", func(s *executor.Spec) {
			s.Mounts[0].Layers = h.layer(t, file{name: "sh", data: b.data, mode: 0o755})
			s.Mounts = append(s.Mounts, executor.Mount{Dest: "/v/w", Type: executor.MountBind}, executor.Mount{Dest: "/dev/shm", Type: executor.MountTmpfs})
			s.KeepMountPoints = true
			s.Args = []string{"/sh", "-c", "echo x >/v/w/x"}
		}).ok(t)
		if got := executortest.Paths(t, h.Store, r.out.Outputs[0]); !slices.Equal(got, []string{"v/", "v/w/"}) {
			t.Errorf("layer holds %q", got)
		}
	})
	t.Run("in a root with nothing in it", func(t *testing.T) {
		t.Parallel()
		b := busyboxFiles(t)[1]
		base := h.layer(t, file{name: "sh", data: b.data, mode: 0o755})
		h.sh(t, "", func(s *executor.Spec) {
			s.Mounts[0].Layers = base
			s.Args = []string{"/sh", "-c", "echo x >/new"}
		}).wrote(t, h, "new")
	})
	t.Run("but the mount points of the runtime do", func(t *testing.T) {
		t.Parallel()
		b := busyboxFiles(t)[1]
		r := h.sh(t, "", func(s *executor.Spec) {
			s.Mounts[0].Layers = h.layer(t, file{name: "sh", data: b.data, mode: 0o755})
			s.Args = []string{"/sh", "-c", "echo x >/sys/x; exit 0"}
		}).ok(t)
		if got := executortest.Paths(t, h.Store, r.out.Outputs[0]); !slices.Equal(got, []string{"dev/", "proc/", "sys/"}) {
			t.Errorf("layer holds %q", got)
		}
		for _, p := range []string{"dev", "proc", "sys"} {
			e := entry(t, h, r.out.Outputs[0], p)
			if e.Mode&0o7777 != 0o755 || e.UID != 0 || e.GID != 0 {
				t.Errorf("%s has mode %o, owner %d:%d", p, e.Mode, e.UID, e.GID)
			}
			if time.Since(e.ModTime) < time.Hour {
				t.Errorf("%s tells when the step ran: %v", p, e.ModTime)
			}
		}
	})
}

func TestTimesOfDirectoriesWithStubs(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	script := "echo x >/opt/full/sub; rm /opt/empty/keep 2>/dev/null; stat -c %Y /opt"
	r := h.sh(t, script, with(executor.Mount{Dest: "/opt/stub", Type: executor.MountTmpfs})).ok(t)
	if e := entry(t, h, r.out.Outputs[0], "opt"); !e.ModTime.Equal(longAgo) {
		t.Errorf("/opt was changed at %v, though only a stub came and went", e.ModTime)
	}
	r = h.sh(t, "echo x >/opt/new", with(executor.Mount{Dest: "/opt/stub", Type: executor.MountTmpfs})).ok(t)
	if e := entry(t, h, r.out.Outputs[0], "opt"); e.ModTime.Equal(longAgo) {
		t.Error("/opt looks unchanged, though the step made a file in it")
	}
}

// TestNestedCachesOfConcurrentSteps: one step's end must not take away what another has mounted in the same volume.
func TestNestedCachesOfConcurrentSteps(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	outer := executor.Mount{Dest: "/c", Type: executor.MountCache, CacheKey: "outer"}
	inner := executor.Mount{Dest: "/c/inner", Type: executor.MountCache, CacheKey: "inner"}
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			spec := h.spec("for i in 1 2 3 4 5 6 7 8; do grep -q ' /c/inner ' /proc/self/mounts || exit 9; sleep 0.02; done")
			spec.Mounts = append(spec.Mounts, outer, inner)
			out, err := h.runc.Run(t.Context(), spec, nil, executor.IO{}, nil)
			if err != nil {
				t.Error(err)
				return
			}
			executortest.Release(t, out)
		})
	}
	wg.Wait()
}

func TestNestedMounts(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	src := h.layer(t, file{name: "main", data: "m", mode: 0o644}, file{name: "sub/", mode: 0o755}, file{name: "sub/f", data: "f", mode: 0o644})
	bind := executor.Mount{Dest: "/src", Type: executor.MountBind, ReadOnly: true, Layers: src}
	cache := executor.Mount{Dest: "/src/node_modules", Type: executor.MountCache, CacheKey: "n"}
	tmp := executor.Mount{Dest: "/src/sub", Type: executor.MountTmpfs}
	// A mount point that a read-only bind lacks is made out of sight.
	h.sh(t, "ls /src; ls /src/sub; touch /src/node_modules/x && ls /src/node_modules; touch /src/y 2>/dev/null || echo no", with(bind, cache, tmp)).
		says(t, "main\nnode_modules\nsub\nx\nno\n").wrote(t, h)
	// The order is that of the definition: what comes later hides what came before.
	h.sh(t, "ls /src", with(tmp, bind)).says(t, "main\nsub\n")
	h.sh(t, "ls /src/node_modules; ls /src", with(cache, bind)).says(t, "main\nsub\n")
}

func TestTmpfs(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.sh(t, "stat -c %a /t; df -k /t | /bin/busybox tail -n 1 | /bin/busybox awk '{print $2}'; head -c 2097152 /dev/zero >/t/big 2>/dev/null || echo full; mount | grep -c ' /t .*nosuid'",
		with(executor.Mount{Dest: "/t", Type: executor.MountTmpfs, TmpfsSize: 1 << 20})).says(t, "1777\n1024\nfull\n1\n").wrote(t, h)
	h.sh(t, "df -k /dev/shm | /bin/busybox tail -n 1 | /bin/busybox awk '{print $2}'", with(executor.Mount{Dest: "/dev/shm", Type: executor.MountTmpfs, TmpfsSize: 4 << 20})).says(t, "4096\n")
}

func TestWritableBindOutput(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	src := h.layer(t, file{name: "sub/", mode: 0o755}, file{name: "sub/f", data: "f", mode: 0o644})
	r := h.sh(t, "rm /m/f; echo g >/m/g", func(s *executor.Spec) {
		s.Mounts = append(s.Mounts,
			executor.Mount{Dest: "/m", Type: executor.MountBind, Layers: src, Selector: "sub", Output: true},
			executor.Mount{Dest: "/m/stub", Type: executor.MountTmpfs})
	}).wrote(t, h)
	if got := fmt.Sprint(executortest.Paths(t, h.Store, r.out.Outputs[1])); got != "[sub/ -sub/f sub/g]" {
		t.Errorf("second output holds %s", got)
	}
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	const value = "kept-to-ourselves-7361"
	svc := executortest.Services{Secrets: map[string]string{"token": value}}
	r := h.shWith(t, "stat -c %u:%g:%a /run/secrets/token; cat /run/secrets/token; echo; echo $TOKEN; touch /run/secrets/token 2>/dev/null || echo read only; mount | grep -c 'secrets/token.*nosuid,nodev,noexec'", svc, func(s *executor.Spec) {
		s.Mounts = append(s.Mounts, executor.Mount{Dest: "/run/secrets/token", Type: executor.MountSecret, ID: "token", Mode: 0o440, UID: 5, GID: 6})
		s.SecretEnvs = []executor.SecretEnv{{ID: "token", Name: "TOKEN"}, {ID: "none", Name: "NONE", Optional: true}}
		s.RemoveMountStubs = true
	})
	r.says(t, "5:6:440\n"+value+"\n"+value+"\nread only\n1\n").wrote(t, h)
	h.nothingLeft(t)
}

// TestSecretsTouchNoDisk looks at everything the executor and the store keep while a step with secrets runs.
func TestSecretsTouchNoDisk(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	const value = "kept-to-ourselves-9164"
	spec := h.Root(executortest.Command{Exit: 0})
	spec.Mounts = append(spec.Mounts, executor.Mount{Dest: "/s", Type: executor.MountSecret, ID: "token", Mode: 0o400})
	spec.SecretEnvs = []executor.SecretEnv{{ID: "token", Name: "TOKEN"}}
	svc := executortest.Services{Secrets: map[string]string{"token": value}}
	out, err := h.runc.Run(t.Context(), spec, svc, executor.IO{Started: func() {
		err := filepath.WalkDir(h.root, func(p string, d os.DirEntry, err error) error {
			if err != nil {
				return nil // the step may end meanwhile
			}
			if d.Name() == "vault" {
				return filepath.SkipDir // the tmpfs
			}
			if b, err := os.ReadFile(p); err == nil && strings.Contains(string(b), value) {
				t.Errorf("secret in %s", p)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	executortest.Release(t, out)
}

func TestSSH(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	svc := executortest.Services{Agents: map[string]func(net.Conn){"default": func(c net.Conn) {
		b := make([]byte, 4)
		if _, err := io.ReadFull(c, b); err == nil {
			_, _ = fmt.Fprintf(c, "pong for %s", b)
		}
		_ = c.Close()
	}}}
	agent := executor.Mount{Dest: "/run/agent.0", Type: executor.MountSSH, ID: "default", Mode: 0o600, UID: 1000, GID: 1001}
	word := seconds()
	spec := h.Root()
	spec.Args = []string{"/bin/sh", "-c", "echo $SSH_AUTH_SOCK; stat -c %u:%g:%a /run/agent.0; read x; true " + word}
	spec.Mounts = append(spec.Mounts, agent)
	spec.RemoveMountStubs = true
	stdin, w := io.Pipe()
	stdout := &feed{want: ":600\n", seen: func() { // the command runs
		defer func() { _ = w.Close() }()
		for range 3 {
			if pids := processes(t, word); len(pids) == 1 {
				ask(t, fmt.Sprintf("/proc/%d/root/run/agent.0", pids[0]))
			} else {
				t.Errorf("processes %v, want one", pids)
			}
		}
	}}
	out, err := h.runc.Run(t.Context(), spec, svc, executor.IO{Stdin: stdin, Stdout: stdout}, nil)
	if err != nil {
		var exit *executor.ExitError
		if !errors.As(err, &exit) {
			t.Fatal(err)
		}
	}
	result{stdout: stdout.all.String(), out: out}.says(t, "/run/agent.0\n1000:1001:600\n").wrote(t, h)
	executortest.Release(t, out)

	r := h.sh(t, "true", with(agent))
	if !errors.Is(r.err, executor.ErrNoSSH) {
		t.Errorf("error %v, want no agent", r.err)
	}
	agent.Optional = true
	h.sh(t, "echo [$SSH_AUTH_SOCK]; test -e /run || echo none", with(agent)).says(t, "[]\nnone\n")
	h.nothingLeft(t)
}

// ask talks to the agent behind a socket as a step would.
func ask(t *testing.T, socket string) {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = c.Close() }() // answered or not
	if _, err := io.WriteString(c, "ping"); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(c); string(b) != "pong for ping" {
		t.Errorf("agent said %q (%v)", b, err)
	}
}

func TestCacheMounts(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	cache := executor.Mount{Dest: "/c", Type: executor.MountCache, CacheKey: "deps", Mode: 0o750, UID: 1000, GID: 1001}
	h.sh(t, "stat -c %u:%g:%a /c; echo x >/c/kept", with(cache)).says(t, "1000:1001:750\n").wrote(t, h)
	h.sh(t, "cat /c/kept", with(cache)).says(t, "x\n")
	ro := cache
	ro.ReadOnly = true
	h.sh(t, "cat /c/kept; touch /c/y 2>/dev/null || echo no", with(ro)).says(t, "x\nno\n")
	two := cache
	two.Dest = "/d"
	two.CacheSharing = layers.Locked
	h.sh(t, "echo y >/c/two; cat /d/two", with(cache, two)).says(t, "y\n")
	base := executor.Mount{Dest: "/c", Type: executor.MountCache, CacheKey: "based", Layers: h.Base, Selector: "opt/full"}
	h.sh(t, "stat -c %u:%g:%a /c; ls /c; rm /c/a", with(base)).says(t, "0:0:755\na\nb\n").wrote(t, h)
	h.sh(t, "ls /c", with(base)).says(t, "b\n")
	from := h.layer(t, file{name: "cache/", mode: 0o1770, uid: 7, gid: 8})
	base = executor.Mount{Dest: "/c", Type: executor.MountCache, CacheKey: "owned", Layers: from, Selector: "/cache"}
	h.sh(t, "stat -c %u:%g:%a /c", with(base)).says(t, "7:8:1770\n")
}

// meet runs two steps with one cache each; the second is started while the first runs, and says what it found.
func meet(t *testing.T, h *host, m executor.Mount, second func(found func() string)) {
	t.Helper()
	inside, leave := make(chan struct{}), make(chan struct{})
	stdin, w := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		spec := h.Root()
		spec.Args = []string{"/bin/sh", "-c", "echo first >/c/who; read x; echo left >/c/who"}
		spec.Mounts = append(spec.Mounts, m)
		out, err := h.runc.Run(t.Context(), spec, nil, executor.IO{Stdin: stdin, Started: func() { close(inside) }}, nil)
		if err != nil {
			t.Error(err)
			return
		}
		executortest.Release(t, out)
	})
	wg.Go(func() {
		<-leave
		_, _ = io.WriteString(w, "go\n")
		_ = w.Close()
	})
	<-inside
	done := sync.OnceFunc(func() { close(leave) })
	second(func() string {
		return h.sh(t, "cat /c/who 2>/dev/null || echo nobody", with(m)).ok(t).stdout
	})
	done()
	wg.Wait()
}

func TestPrivateCache(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	m := executor.Mount{Dest: "/c", Type: executor.MountCache, CacheKey: "k", CacheSharing: layers.Private}
	meet(t, h, m, func(found func() string) {
		if got := found(); got != "nobody\n" {
			t.Errorf("second step found %q in a private cache", got)
		}
	})
}

func TestSharedCache(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	m := executor.Mount{Dest: "/c", Type: executor.MountCache, CacheKey: "k", CacheSharing: layers.Shared}
	meet(t, h, m, func(found func() string) {
		// The first one may not have come to write yet, but it does not keep the second one out.
		if got := found(); got != "first\n" && got != "nobody\n" {
			t.Errorf("second step found %q in a shared cache", got)
		}
	})
}

func TestLockedCache(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	m := executor.Mount{Dest: "/c", Type: executor.MountCache, CacheKey: "k", CacheSharing: layers.Locked}
	got := make(chan string, 1)
	meet(t, h, m, func(found func() string) {
		go func() { got <- found() }()
	})
	if got := <-got; got != "left\n" {
		t.Errorf("second step found %q: it did not wait for the first", got)
	}
}

func TestLockedCachesInAnyOrder(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	lock := func(dest, key string) executor.Mount {
		return executor.Mount{Dest: dest, Type: executor.MountCache, CacheKey: key, CacheSharing: layers.Locked}
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			mounts := []executor.Mount{lock("/a", "one"), lock("/b", "two")}
			if i%2 == 1 {
				mounts = []executor.Mount{lock("/b", "two"), lock("/a", "one"), lock("/c", "one")}
			}
			spec := h.Root(executortest.Command{Exit: 0})
			spec.Mounts = append(spec.Mounts, mounts...)
			out, err := h.runc.Run(t.Context(), spec, nil, executor.IO{}, nil)
			if err != nil {
				t.Error(err)
				return
			}
			executortest.Release(t, out)
		})
	}
	wg.Wait()
}
