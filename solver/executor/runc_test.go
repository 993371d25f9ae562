package executor_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/slipwaybuild/slipway/solver/executor"
	"github.com/slipwaybuild/slipway/solver/executor/executortest"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"go.uber.org/goleak"
)

func TestContract(t *testing.T) {
	executortest.Run(t, func(t *testing.T) executortest.Env {
		h := newHost(t)
		t.Cleanup(func() { h.nothingLeft(t) })
		return h.Env
	})
}

func TestLayerHoldsWhatTheStepDid(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, c := range []struct {
		name, script string
		want         []string
	}{
		{"nothing", "true", nil},
		{"a file", "echo x >/opt/new", []string{"opt/", "opt/new"}},
		{"a deletion", "rm /opt/full/a", []string{"opt/", "opt/full/", "-opt/full/a"}},
		{"a deleted directory", "rm -r /opt/full", []string{"opt/", "-opt/full"}},
		{"a directory made anew", "rm -r /opt/full && mkdir /opt/full && echo x >/opt/full/c", []string{"opt/", "opt/full/", "-opt/full/a", "-opt/full/b", "opt/full/c"}},
		{"a mode", "chmod 711 /opt/empty", []string{"opt/", "opt/empty/"}},
		{"a file in /etc", "echo x >/etc/motd", []string{"etc/", "etc/motd"}},
		{"a symlink", "ln -s /nowhere /l", []string{"l"}},
		{"output of programs in the background", "(sleep 1000; echo x >/late) & echo y >/now", []string{"now"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h.sh(t, c.script, nil).wrote(t, h, c.want...)
		})
	}
}

func TestOpaqueDirectory(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := h.sh(t, "rm -r /opt/full && mkdir /opt/full && echo x >/opt/full/c", nil).ok(t)
	h.sh(t, "ls /opt/full", func(s *executor.Spec) {
		s.Mounts[0].Layers = append(append([]layers.ID{}, h.Base...), r.out.Outputs[0].IDs()...)
	}).says(t, "c\n")
}

func TestProcess(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, c := range []struct {
		name, script string
		change       func(*executor.Spec)
		want         string
	}{
		{"root has its groups", "id -u; id -g; id -G", nil, "0\n0\n0 10\n"},
		{"a user by name", "id -u; id -g; id -G; echo $HOME", func(s *executor.Spec) { s.User = "ada" }, "1000\n1001\n1001 10\n/home/ada\n"},
		{"a user by number", "id -u; id -g; echo $HOME", func(s *executor.Spec) { s.User = "4242" }, "4242\n0\n/\n"},
		{"a user and a group", "id -u; id -g; id -G", func(s *executor.Spec) { s.User = "ada:other" }, "1000\n20\n20\n"},
		{"a user and a number", "id -u; id -g", func(s *executor.Spec) { s.User = "ada:77" }, "1000\n77\n"},
		{"a default PATH", "echo $PATH", nil, "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"},
		{"its environment and no other", "echo $A:$HOME", func(s *executor.Spec) { s.Env = []string{"A=1 2", "HOME=/x"} }, "1 2:/x\n"},
		{"its directory", "pwd", func(s *executor.Spec) { s.Cwd = "/opt/full" }, "/opt/full\n"},
		{"a directory that is made", "pwd; stat -c %u:%g:%a .", func(s *executor.Spec) { s.Cwd = "/srv/new/dir"; s.User = "ada" }, "/srv/new/dir\n1000:1001:755\n"},
		{"a host name", "hostname; cat /etc/hosts | head -n 1", nil, "buildkitsandbox\n127.0.0.1\tlocalhost buildkitsandbox\n"},
		{"another host name", "hostname", func(s *executor.Spec) { s.Hostname = "forge" }, "forge\n"},
		{"extra hosts", "cat /etc/hosts | /bin/busybox tail -n 2", func(s *executor.Spec) {
			s.ExtraHosts = []executor.HostIP{{Host: "a.test", IP: "10.0.0.1"}, {Host: "b.test", IP: "::2"}}
		}, "10.0.0.1\ta.test\n::2\tb.test\n"},
		{"limits", "ulimit -n; ulimit -Hn", func(s *executor.Spec) {
			s.Ulimits = []executor.Ulimit{{Name: "nofile", Soft: 100, Hard: 200}}
		}, "100\n200\n"},
		{"no network", "ip -o link | /bin/busybox wc -l; ip -o addr show lo | head -n 1 | grep -c 127.0.0.1", func(s *executor.Spec) {
			s.Network = executor.NetworkNone
		}, "1\n1\n"},
		{"Docker's capabilities", "grep CapEff /proc/self/status", nil, "CapEff:\t00000000a80425fb\n"},
		{"none for others than root", "grep -E 'CapEff|CapBnd' /proc/self/status", func(s *executor.Spec) { s.User = "ada" }, "CapEff:\t0000000000000000\nCapBnd:\t00000000a80425fb\n"},
		{"seccomp", "grep -E 'Seccomp:|NoNewPrivs' /proc/self/status", nil, "NoNewPrivs:\t0\nSeccomp:\t2\n"},
		{"no seccomp when insecure", "grep -E 'Seccomp:' /proc/self/status; mount -t tmpfs x /opt && echo mounted", func(s *executor.Spec) {
			s.Security = executor.SecurityInsecure
		}, "Seccomp:\t0\nmounted\n"},
		{"no mounting when confined", "mount -t tmpfs x /opt 2>/dev/null || echo refused", nil, "refused\n"},
		{"read-only sysfs and proc", "touch /sys/x 2>/dev/null || echo no; echo 1 2>/dev/null >/proc/sys/kernel/sysrq || echo no", nil, "no\nno\n"},
		{"its own pids", "echo $$", nil, "1\n"},
		{"64 MiB of shared memory", "df -k /dev/shm | /bin/busybox tail -n 1 | /bin/busybox awk '{print $2}'", nil, "65536\n"},
		{"a root that may be read only", "touch /x 2>/dev/null || echo no", func(s *executor.Spec) {
			s.Mounts[0].ReadOnly, s.Mounts[0].Output = true, false
		}, "no\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h.sh(t, c.script, c.change).says(t, c.want)
		})
	}
}

func TestCwdIsTheUsersAndStays(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := h.sh(t, "true", func(s *executor.Spec) { s.Cwd, s.User = "/opt/new/dir", "ada" }).wrote(t, h, "opt/", "opt/new/", "opt/new/dir/")
	for _, p := range []string{"opt/new", "opt/new/dir"} {
		if e := entry(t, h, r.out.Outputs[0], p); e.UID != 1000 || e.GID != 1001 {
			t.Errorf("%s is owned by %d:%d", p, e.UID, e.GID)
		}
	}
}

func entry(t *testing.T, h *host, ref *layers.Ref, p string) fstree.Entry {
	t.Helper()
	tree, err := h.Store.LayerTree(t.Context(), ref, 0)
	if err != nil {
		t.Fatal(err)
	}
	e, err := tree.Stat(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestStartErrors(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, c := range []struct {
		name string
		args []string
		user string
		want string
		code int
	}{
		{"a missing command", []string{"foo", "bar"}, "", `exec: "foo": executable file not found in $PATH`, 127},
		{"a missing path", []string{"/no/foo"}, "", `exec: "/no/foo": stat /no/foo: no such file or directory`, 127},
		{"a directory", []string{"/opt"}, "", `exec: "/opt": permission denied`, 126},
		{"no permission", []string{"/etc/passwd"}, "", `exec: "/etc/passwd": permission denied`, 126},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := h.sh(t, "", func(s *executor.Spec) { s.Args, s.User = c.args, c.user })
			var start *executor.StartError
			if !errors.As(r.err, &start) {
				t.Fatalf("error %T %v, want a start error", r.err, r.err)
			}
			if start.Error() != c.want || start.Code != c.code {
				t.Errorf("got %q (%d), want %q (%d)", start, start.Code, c.want, c.code)
			}
		})
	}
	h.nothingLeft(t)
}

func TestInvalidSpecs(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, c := range []struct {
		name   string
		change func(*executor.Spec)
		words  []string
	}{
		{"unknown user", func(s *executor.Spec) { s.User = "nobody" }, []string{"nobody"}},
		{"unknown group", func(s *executor.Spec) { s.User = "ada:nogroup" }, []string{"nogroup"}},
		{"a file as directory", func(s *executor.Spec) { s.Cwd = "/etc/passwd" }, []string{"/etc/passwd", "not a directory"}},
		{"unknown limit", func(s *executor.Spec) { s.Ulimits = []executor.Ulimit{{Name: "fun"}} }, []string{"fun"}},
		{"bad extra host", func(s *executor.Spec) { s.ExtraHosts = []executor.HostIP{{Host: "a", IP: "b"}} }, []string{"extra host"}},
		{"a host that is lines", func(s *executor.Spec) { s.ExtraHosts = []executor.HostIP{{Host: "a\nb", IP: "::1"}} }, []string{"extra host"}},
		{"no root", func(s *executor.Spec) { s.Mounts = nil }, []string{"mounts on /"}},
		{"two roots", func(s *executor.Spec) { s.Mounts = append(s.Mounts, s.Mounts[0]) }, []string{"mounts on /"}},
		{"unknown type", func(s *executor.Spec) { s.Mounts = append(s.Mounts, executor.Mount{Dest: "/x", Type: "odd"}) }, []string{"odd"}},
		{"cache without key", func(s *executor.Spec) {
			s.Mounts = append(s.Mounts, executor.Mount{Dest: "/x", Type: executor.MountCache})
		}, []string{"key"}},
		{"zero byte", func(s *executor.Spec) { s.Env = []string{"A=\x00"} }, []string{"zero byte"}},
		{"other system", func(s *executor.Spec) { s.Platform = "windows/amd64" }, []string{"windows"}},
		{"missing selector", func(s *executor.Spec) {
			s.Mounts = append(s.Mounts, executor.Mount{Dest: "/x", Type: executor.MountBind, Layers: h.Base, Selector: "no/where"})
		}, []string{"/x", "no/where"}},
		{"a directory on a file", func(s *executor.Spec) {
			s.Mounts = append(s.Mounts, executor.Mount{Dest: "/etc/passwd", Type: executor.MountTmpfs})
		}, []string{"/etc/passwd"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h.sh(t, "true", c.change).invalid(t, c.words...)
		})
	}
}

func TestCancelKillsAllAtOnce(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	word := seconds()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	go func() {
		// The step says so when its children run.
		if _, err := io.ReadFull(r, make([]byte, 3)); err != nil {
			t.Error(err)
		}
		if n := len(processes(t, word)); n < 3 {
			t.Errorf("%d processes run, want the shell and two children", n)
		}
		cancel()
		_, _ = io.Copy(io.Discard, r) // until the step is gone
	}()
	script := fmt.Sprintf("trap '' TERM INT; sleep %s & (sleep %s & wait) & echo up; wait", word, word)
	spec := h.Root()
	spec.Args = []string{"/bin/sh", "-c", script}
	_, err := h.runc.Run(ctx, spec, nil, executor.IO{Stdout: w}, nil)
	_ = w.Close()
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want canceled", err)
	}
	if n := len(processes(t, word)); n != 0 {
		t.Errorf("%d processes outlived their step", n)
	}
	h.nothingLeft(t)
}

func TestCancelAtAnyMoment(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	word := seconds()
	for i := range 12 {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			// From before the runtime is started until the command runs: the moments are those that scheduling gives.
			for range i * 40 {
				if _, err := os.ReadDir(filepath.Join(h.root, "runtime")); err != nil {
					t.Error(err)
				}
			}
			cancel()
		}()
		spec := h.Root()
		spec.Args = []string{"/bin/sleep", word}
		if _, err := h.runc.Run(ctx, spec, nil, executor.IO{}, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want canceled", err)
		}
		if n := len(processes(t, word)); n != 0 {
			t.Errorf("%d processes outlived their step", n)
		}
		h.nothingLeft(t)
	}
}

func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := h.sh(t, "dd if=/dev/zero of=/dev/null bs=256M count=1", func(s *executor.Spec) {
		s.Resources.Memory = 32 << 20
		s.Resources.MemorySwap = 32 << 20
	})
	if errors.Is(r.err, executor.ErrNoCgroups) {
		t.Skip(r.err)
	}
	var exit *executor.ExitError
	if !errors.As(r.err, &exit) || exit.Code != 137 || !exit.OOM {
		t.Errorf("error %v, want 137 for want of memory\n%s", r.err, r.stderr)
	}
	h.nothingLeft(t)
}

func TestSignalExit(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	var exit *executor.ExitError
	if r := h.sh(t, "sh -c 'kill -SEGV $$'; exit $?", nil); !errors.As(r.err, &exit) || exit.Code != 139 {
		t.Errorf("error %v, want 139", r.err)
	}
}

func TestKeepFailed(t *testing.T) {
	t.Parallel()
	h := newHost(t, func(o *executor.Options) { o.KeepFailed = true })
	var exit *executor.ExitError
	r := h.sh(t, "echo x >/f; echo y >/rw/f; exit 1", func(s *executor.Spec) {
		s.Mounts = slices.Insert(s.Mounts, 0, executor.Mount{Dest: "/ro", ReadOnly: true}, executor.Mount{Dest: "/rw"})
	})
	if !errors.As(r.err, &exit) || len(exit.Left) != 3 || exit.Left[0] != nil {
		t.Fatalf("error %v, want one with what was left", r.err)
	}
	defer executortest.Release(t, &executor.Outcome{Outputs: exit.Left[1:]})
	for i, want := range []string{1: "y\n", 2: "x\n"} {
		if i == 0 {
			continue
		}
		if got, err := executortest.ReadLayer(t, h.Store, exit.Left[i], "f"); got != want {
			t.Errorf("f of mount %d holds %q (%v)", i, got, err)
		}
	}
}

func TestNoRuntime(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r, err := executor.New(executor.Options{Store: h.Store, Root: t.TempDir(), Binary: "no-such-runtime"})
	if err != nil {
		t.Fatalf("a daemon without runtime must start: %v", err)
	}
	_, err = r.Run(t.Context(), h.Root(), nil, executor.IO{}, nil)
	var none *executor.NoRuntimeError
	if !errors.As(err, &none) || !strings.Contains(err.Error(), "apt-get install runc") {
		t.Errorf("error %v, want one that says what to install", err)
	}
	// A program that is no runtime is skipped for a reason.
	r, err = executor.New(executor.Options{Store: h.Store, Root: t.TempDir(), Binary: "false"})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Check(t.Context()); !errors.As(err, &none) {
		t.Errorf("error %v, want no runtime", err)
	}
}

func TestSlotsAreTakenLast(t *testing.T) {
	t.Parallel()
	h := newHost(t, func(o *executor.Options) { o.MaxParallelism = 1 })
	locked := executor.Mount{Dest: "/c", Type: executor.MountCache, CacheKey: "k", CacheSharing: layers.Locked}
	inside := make(chan struct{})
	release := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		spec := h.Root(executortest.Command{Exit: 0})
		spec.Mounts = append(spec.Mounts, locked)
		out, err := h.runc.Run(t.Context(), spec, nil, executor.IO{Started: func() {
			close(inside)
			<-release
		}}, nil)
		if err != nil {
			t.Error(err)
			return
		}
		executortest.Release(t, out)
	})
	<-inside
	for range 4 {
		wg.Go(func() {
			spec := h.Root(executortest.Command{Exit: 0})
			spec.Mounts = append(spec.Mounts, locked)
			out, err := h.runc.Run(t.Context(), spec, nil, executor.IO{}, nil)
			if err != nil {
				t.Error(err)
				return
			}
			executortest.Release(t, out)
		})
	}
	close(release)
	wg.Wait()
}

// TestManyStepsLeaveNothing is not parallel: it counts what the whole process holds.
func TestManyStepsLeaveNothing(t *testing.T) {
	group := "/slipway-" + seconds()
	h := newHost(t, func(o *executor.Options) { o.MaxParallelism, o.CgroupParent = 8, group })
	before := fds(t)
	ignore := goleak.IgnoreCurrent()
	const runs = 200
	var wg sync.WaitGroup
	for i := range runs {
		wg.Go(func() {
			spec := h.Root(executortest.Command{Write: &executortest.Write{Path: "/n", Data: fmt.Sprint(i)}})
			spec.Mounts = append(spec.Mounts,
				executor.Mount{Dest: "/c", Type: executor.MountCache, CacheKey: "many"},
				executor.Mount{Dest: "/t", Type: executor.MountTmpfs})
			out, err := h.runc.Run(t.Context(), spec, nil, executor.IO{}, nil)
			if err != nil {
				t.Errorf("run %d: %v", i, err)
				return
			}
			executortest.Release(t, out)
		})
	}
	wg.Wait()
	h.nothingLeft(t)
	goleak.VerifyNone(t, ignore)
	if after := fds(t); after > before+8 { // the store may keep some layers open
		t.Errorf("%d file descriptors, %d before", after, before)
	}
	groups, err := filepath.Glob("/sys/fs/cgroup/*" + group)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range append(groups, "/sys/fs/cgroup"+group) {
		if err := os.Remove(g); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("cgroups are left: %v", err)
		}
	}
}
