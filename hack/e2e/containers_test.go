package e2e

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	bksession "github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"
)

// bench is a client that drives a build, in which it looks around.
type bench struct {
	t   *testing.T
	ctx context.Context
	c   gwclient.Client
}

// shellState is a root file system in which a shell runs; it needs the local directory "bb".
func shellState() llb.State {
	return llb.Scratch().File(llb.Mkdir("/bin", 0o755)).File(llb.Copy(llb.Local("bb"), "/busybox", "/bin/busybox")).
		Run(llb.Args([]string{"/bin/busybox", "--install", "-s", "/bin"})).Root()
}

// drive runs do as a build of a client.
func drive(t *testing.T, d *daemon, opt bkclient.SolveOpt, do func(b bench)) {
	t.Helper()
	opt.LocalMounts = localDirs(t, dirWithBusybox(t, nil), "bb")
	_, err := d.driver().Build(t.Context(), opt, "test", func(ctx context.Context, c gwclient.Client) (*gwclient.Result, error) {
		do(bench{t, ctx, c})
		return gwclient.NewResult(), nil
	}, nil)
	if err != nil {
		t.Errorf("build: %v\nthe daemon's log:\n%s", err, d.logText())
	}
}

func (b bench) ref(st llb.State) gwclient.Reference {
	b.t.Helper()
	ref, err := refOf(b.ctx, b.c, st)
	if err != nil {
		b.t.Fatal(err)
	}
	return ref
}

// container is one over a shell, released in the end.
func (b bench) container(change func(*gwclient.NewContainerRequest)) gwclient.Container {
	b.t.Helper()
	req := gwclient.NewContainerRequest{Mounts: []gwclient.Mount{{Dest: "/", MountType: pb.MountType_BIND, Ref: b.ref(shellState())}}}
	if change != nil {
		change(&req)
	}
	ctr, err := b.c.NewContainer(b.ctx, req)
	if err != nil {
		b.t.Fatal(err)
	}
	return ctr
}

func (b bench) start(ctr gwclient.Container, req gwclient.StartRequest) gwclient.ContainerProcess {
	b.t.Helper()
	p, err := ctr.Start(b.ctx, req)
	if err != nil {
		b.t.Fatalf("start %q: %v", req.Args, err)
	}
	return p
}

// sh runs a script to its end and returns what it printed.
func (b bench) sh(ctr gwclient.Container, script string, change ...func(*gwclient.StartRequest)) (string, error) {
	b.t.Helper()
	var out bytes.Buffer
	req := gwclient.StartRequest{Args: []string{"/bin/sh", "-c", script}, Stdout: keepOpen{&out}, Stderr: keepOpen{&out}}
	for _, f := range change {
		f(&req)
	}
	err := b.start(ctr, req).Wait()
	return out.String(), err
}

func (b bench) says(ctr gwclient.Container, script, want string, change ...func(*gwclient.StartRequest)) {
	b.t.Helper()
	if got, err := b.sh(ctr, script, change...); err != nil || got != want {
		b.t.Errorf("%s said %q, want %q (%v)", script, got, want, err)
	}
}

func (b bench) release(ctr gwclient.Container) {
	b.t.Helper()
	if err := ctr.Release(b.ctx); err != nil {
		b.t.Errorf("release: %v", err)
	}
}

type keepOpen struct{ io.Writer }

func (keepOpen) Close() error { return nil }

// exits checks the code that a process ended with.
func exits(t *testing.T, err error, code uint32) {
	t.Helper()
	var exit *gwpb.ExitError
	if !errors.As(err, &exit) || exit.ExitCode != code {
		t.Errorf("ended with %v, want exit code %d", err, code)
	}
}

func TestContainerProcesses(t *testing.T) {
	drive(t, startDaemon(t), bkclient.SolveOpt{}, func(b bench) {
		ctr := b.container(func(r *gwclient.NewContainerRequest) {
			r.Hostname = "boat"
			r.ExtraHosts = []*pb.HostIP{{Host: "lighthouse", IP: "192.0.2.7"}}
			r.Mounts = append(r.Mounts, gwclient.Mount{Dest: "/tmp", MountType: pb.MountType_TMPFS},
				gwclient.Mount{Dest: "/cache", MountType: pb.MountType_CACHE, CacheOpt: &pb.CacheOpt{ID: "c"}})
		})
		first := b.start(ctr, gwclient.StartRequest{Args: []string{"sleep", "27182"}})
		b.says(ctr, "hostname; echo x > /tmp/f; grep lighthouse /etc/hosts", "boat\n192.0.2.7\tlighthouse\n")
		b.says(ctr, "cat /tmp/f; echo $PATH", "x\n/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n")
		b.says(ctr, "id -u; pwd; echo $A; tr '\\0' ' ' </proc/1/cmdline", "12\n/bin\na\nsleep 27182 ", func(r *gwclient.StartRequest) {
			r.User, r.Cwd, r.Env = "12", "/bin", []string{"A=a"}
		})
		b.says(ctr, "tr a b", strings.Repeat("b", 1<<20), func(r *gwclient.StartRequest) {
			r.Stdin = io.NopCloser(strings.NewReader(strings.Repeat("a", 1<<20)))
		})
		_, err := b.sh(ctr, "exit 42")
		exits(t, err, 42)
		missing := b.start(ctr, gwclient.StartRequest{Args: []string{"nothing"}})
		err = missing.Wait()
		exits(t, err, 127)
		if !strings.Contains(err.Error(), "not found") {
			t.Errorf("a missing command: %v", err)
		}
		b.release(ctr)
		if err := first.Wait(); err == nil {
			t.Error("a process of a released container ended well")
		}
		if left := processesNaming("sleep\x0027182"); len(left) > 0 {
			t.Errorf("left running: %v", left)
		}
		if err := ctr.Release(b.ctx); grpcerrors.Code(err) != codes.NotFound {
			t.Errorf("a second release: %v", err)
		}
	})
}

func TestContainerEndsWithItsFirstProcess(t *testing.T) {
	drive(t, startDaemon(t), bkclient.SolveOpt{}, func(b bench) {
		ctr := b.container(nil)
		in, w := io.Pipe()
		first := b.start(ctr, gwclient.StartRequest{Args: []string{"sh", "-c", "read x; exit 99"}, Stdin: in})
		second := b.start(ctr, gwclient.StartRequest{Args: []string{"sleep", "1000"}})
		if _, err := io.WriteString(w, "\n"); err != nil {
			t.Fatal(err)
		}
		exits(t, first.Wait(), 99)
		exits(t, second.Wait(), 137)
		b.release(ctr)
	})
}

func TestContainerSignals(t *testing.T) {
	drive(t, startDaemon(t), bkclient.SolveOpt{}, func(b bench) {
		ctr := b.container(nil)
		for _, which := range []string{"the first process", "another"} {
			out, printed := watched("ready")
			p := b.start(ctr, gwclient.StartRequest{Args: []string{"sh", "-c", "trap 'echo caught' HUP; echo ready; while :; do sleep 0.05; done"}, Stdout: out})
			<-printed
			caught := out.then("caught")
			if err := p.Signal(b.ctx, syscall.SIGHUP); err != nil {
				t.Errorf("%s: %v", which, err)
			}
			<-caught
		}
		p := b.start(ctr, gwclient.StartRequest{Args: []string{"sleep", "1000"}})
		if err := p.Signal(b.ctx, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
		exits(t, p.Wait(), 137)
		b.release(ctr)
	})
}

func TestContainerTerminals(t *testing.T) {
	drive(t, startDaemon(t), bkclient.SolveOpt{}, func(b bench) {
		ctr := b.container(nil)
		for _, which := range []string{"the first process", "another"} {
			in, w := io.Pipe()
			out, printed := watched("ready")
			p := b.start(ctr, gwclient.StartRequest{
				Args: []string{"sh", "-c", "trap 'stty size' WINCH; tty; echo $TERM; echo ready; while :; do read x; test \"$x\" = bye && exit 4; done"},
				Tty:  true, Stdin: in, Stdout: out, Stderr: out,
			})
			<-printed
			sized := out.then("33 101")
			if err := p.Resize(b.ctx, gwclient.WinSize{Rows: 33, Cols: 101}); err != nil {
				t.Errorf("%s: %v", which, err)
			}
			<-sized
			if which != "the first process" {
				if _, err := io.WriteString(w, "bye\n"); err != nil {
					t.Error(err)
				}
				exits(t, p.Wait(), 4)
			}
			if !strings.Contains(out.text(), "/dev/pts/") || !strings.Contains(out.text(), "xterm") {
				t.Errorf("%s: the terminal showed %q", which, out.text())
			}
		}
		b.release(ctr)
	})
}

func TestContainerSecrets(t *testing.T) {
	opt := bkclient.SolveOpt{Session: []bksession.Attachable{secretsprovider.FromMap(map[string][]byte{"s": []byte("hunter2")})}}
	drive(t, startDaemon(t), opt, func(b bench) {
		ctr := b.container(func(r *gwclient.NewContainerRequest) {
			r.Mounts = append(r.Mounts, gwclient.Mount{Dest: "/s", MountType: pb.MountType_SECRET, SecretOpt: &pb.SecretOpt{ID: "s", Mode: 0o400}})
		})
		env := func(ids ...string) func(*gwclient.StartRequest) {
			return func(r *gwclient.StartRequest) {
				for _, id := range ids {
					r.SecretEnv = append(r.SecretEnv, &pb.SecretEnv{ID: id, Name: strings.ToUpper(id), Optional: id == "o"})
				}
			}
		}
		first := b.start(ctr, gwclient.StartRequest{Args: []string{"sleep", "1000"}})
		b.says(ctr, "cat /s; echo $S$O", "hunter2hunter2\n", env("s", "o"))
		if _, err := b.sh(ctr, "true", env("none")); err == nil || !strings.Contains(err.Error(), "none: not found") {
			t.Errorf("a secret that nobody has: %v", err)
		}
		b.says(ctr, "echo on", "on\n") // the stream outlives what went wrong
		b.release(ctr)
		_ = first.Wait()
		if _, err := b.c.NewContainer(b.ctx, gwclient.NewContainerRequest{Mounts: []gwclient.Mount{
			{Dest: "/", Ref: b.ref(shellState())}, {Dest: "/s", MountType: pb.MountType_SECRET, SecretOpt: &pb.SecretOpt{ID: "none"}},
		}}); err == nil || !strings.Contains(err.Error(), "none: not found") {
			t.Errorf("a mount of a secret that nobody has: %v", err)
		}
	})
}

func TestContainerFiles(t *testing.T) {
	drive(t, startDaemon(t), bkclient.SolveOpt{}, func(b bench) {
		files := llb.Scratch().File(llb.Mkdir("/sel", 0o755).Mkfile("/sel/f", 0o640, []byte("0123456789")))
		ctr := b.container(func(r *gwclient.NewContainerRequest) {
			r.Mounts = append(r.Mounts, gwclient.Mount{Dest: "/m", Selector: "/sel", Readonly: true, Ref: b.ref(files)})
		})
		b.says(ctr, "echo made > /made; mkfifo /fifo; cat /m/f; echo x 2>/dev/null > /m/g || echo no", "0123456789no\n")
		read := func(mount int, name string, r *gwclient.FileRange) (string, error) {
			data, err := ctr.ReadFile(b.ctx, gwclient.ReadContainerRequest{MountIndex: mount, ReadRequest: gwclient.ReadRequest{Filename: name, Range: r}})
			return string(data), err
		}
		if got, err := read(0, "/made", nil); err != nil || got != "made\n" {
			t.Errorf("a file: %q, %v", got, err)
		}
		if got, err := read(1, "/f", &gwclient.FileRange{Offset: 2, Length: 3}); err != nil || got != "234" {
			t.Errorf("a range: %q, %v", got, err)
		}
		if _, err := read(1, "/f", &gwclient.FileRange{Offset: -1, Length: 3}); grpcerrors.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "invalid range") {
			t.Errorf("a negative range: %v", err)
		}
		if _, err := read(0, "/fifo", nil); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("a fifo: %v", err)
		}
		if _, err := read(0, "/none", nil); grpcerrors.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "/none: no such file") {
			t.Errorf("a missing file: %v", err)
		}
		if _, err := read(7, "/", nil); grpcerrors.Code(err) != codes.InvalidArgument {
			t.Errorf("a mount that is not there: %v", err)
		}
		st, err := ctr.StatFile(b.ctx, gwclient.StatContainerRequest{MountIndex: 1, StatRequest: gwclient.StatRequest{Path: "/f"}})
		if err != nil || st.Size != 10 || st.Mode != 0o640 || st.Path != "f" {
			t.Errorf("a description: %v, %v", st, err)
		}
		list, err := ctr.ReadDir(b.ctx, gwclient.ReadDirContainerRequest{ReadDirRequest: gwclient.ReadDirRequest{Path: "/", IncludePattern: "f*"}})
		if err != nil || len(list) != 1 || list[0].Path != "fifo" || os.FileMode(list[0].Mode)&os.ModeNamedPipe == 0 {
			t.Errorf("a directory: %v, %v", list, err)
		}
		b.release(ctr)
	})
}

func TestContainerEntitlements(t *testing.T) {
	dir := write(t, map[string]string{"c.toml": "insecure-entitlements = [\"network.host\", \"security.insecure\"]\n"})
	d := startDaemon(t, "--config", filepath.Join(dir, "c.toml"))
	caps := "grep CapEff /proc/self/status | cut -f 2"
	insecure := func(r *gwclient.StartRequest) { r.SecurityMode = pb.SecurityMode_INSECURE }
	drive(t, d, bkclient.SolveOpt{}, func(b bench) {
		ctr := b.container(nil)
		b.says(ctr, caps, "00000000a80425fb\n")
		b.release(ctr)
		ctr = b.container(nil)
		if _, err := b.sh(ctr, caps, insecure); err == nil || !strings.Contains(err.Error(), "security.insecure is not allowed") {
			t.Errorf("insecure without asking: %v", err)
		}
		b.release(ctr)
		if _, err := b.c.NewContainer(b.ctx, gwclient.NewContainerRequest{
			NetMode: pb.NetMode_HOST, Mounts: []gwclient.Mount{{Dest: "/", Ref: b.ref(shellState())}},
		}); err == nil || !strings.Contains(err.Error(), "network.host is not allowed") {
			t.Errorf("the host's network without asking: %v", err)
		}
	})
	drive(t, d, bkclient.SolveOpt{AllowedEntitlements: []string{"security.insecure", "network.host"}}, func(b bench) {
		ctr := b.container(func(r *gwclient.NewContainerRequest) { r.NetMode = pb.NetMode_NONE })
		got, err := b.sh(ctr, caps+"; ls /sys/class/net", insecure)
		if err != nil || strings.HasPrefix(got, "00000000a80425fb") || !strings.HasSuffix(got, "\nlo\n") {
			t.Errorf("insecure said %q (%v)", got, err)
		}
		b.release(ctr)
	})
}

func TestContainerOfAClientThatGoes(t *testing.T) {
	d := startDaemon(t)
	ctx, cancel := context.WithCancel(t.Context())
	dir := dirWithBusybox(t, nil)
	ended := make(chan error, 1)
	go func() {
		_, err := d.driver().Build(ctx, bkclient.SolveOpt{LocalMounts: localDirs(t, dir, "bb")}, "test", func(ctx context.Context, c gwclient.Client) (*gwclient.Result, error) {
			b := bench{t, ctx, c}
			ctr := b.container(nil)
			in, _ := io.Pipe()
			b.start(ctr, gwclient.StartRequest{Args: []string{"sleep", "16180"}, Stdin: in})
			// Nobody reads what this one prints.
			_, full := io.Pipe()
			b.start(ctr, gwclient.StartRequest{Args: []string{"sh", "-c", "yes 16180"}, Stdout: full})
			cancel()
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}, nil)
		ended <- err
	}()
	if err := <-ended; err == nil {
		t.Error("a cancelled build succeeded")
	}
	waitFor(t, "the processes to end", func() bool { return len(processesNaming("16180")) == 0 })
	waitFor(t, "the build to end", func() bool { return strings.Contains(d.logText(), "build ends") })
}

func TestContainerNobodyReleases(t *testing.T) {
	d := startDaemon(t)
	drive(t, d, bkclient.SolveOpt{}, func(b bench) {
		b.start(b.container(nil), gwclient.StartRequest{Args: []string{"sleep", "14142"}})
	})
	if left := processesNaming("sleep\x0014142"); len(left) > 0 {
		t.Errorf("left running: %v", left)
	}
}

// TestLookingIntoFailedSteps does what a debugger does: it opens a container over what a failed step left.
func TestLookingIntoFailedSteps(t *testing.T) {
	d := startDaemon(t)
	fail := "echo %[1]s > /data; mkdir -p /rw; echo %[1]s > /rw/data; exit 1"
	fail = strings.ReplaceAll(fail, "%[1]s", "left")
	foo := llb.Scratch().File(llb.Mkfile("foo", 0o600, []byte("left\n")))
	for name, c := range map[string]struct {
		opts  []llb.RunOption
		paths []string
	}{
		"only the root":          {nil, []string{"/data"}},
		"an empty mount":         {[]llb.RunOption{llb.AddMount("/rw", llb.Scratch())}, []string{"/data", "/rw/data"}},
		"a mount":                {[]llb.RunOption{llb.AddMount("/rw", foo)}, []string{"/data", "/rw/data", "/rw/foo"}},
		"a mount without output": {[]llb.RunOption{llb.AddMount("/rw", foo, llb.ForceNoOutput)}, []string{"/data", "/rw/data", "/rw/foo"}},
	} {
		t.Run(name, func(t *testing.T) {
			drive(t, d, bkclient.SolveOpt{}, func(b bench) {
				opts := append([]llb.RunOption{llb.Args([]string{"/bin/sh", "-c", fail})}, c.opts...)
				op, se := b.fails(shellState().Run(opts...).Root())
				exec := op.GetExec()
				if exec == nil || len(se.MountIDs) != len(exec.Mounts) || len(se.InputIDs) != len(exec.Mounts) {
					t.Fatalf("the error tells of %v", se.Solve)
				}
				var mounts, before []gwclient.Mount
				for i, m := range exec.Mounts {
					mount := gwclient.Mount{Dest: m.Dest, Selector: m.Selector, Readonly: m.Readonly, MountType: m.MountType, ResultID: se.MountIDs[i]}
					mounts = append(mounts, mount)
					mount.ResultID = se.InputIDs[i]
					before = append(before, mount)
				}
				ctr := b.over(mounts)
				b.says(ctr, "cat "+strings.Join(c.paths, " "), strings.Repeat("left\n", len(c.paths)))
				b.release(ctr)
				ctr = b.over(before)
				b.says(ctr, "test -e /data || echo before", "before\n")
				b.release(ctr)
			})
		})
	}
}

func TestLookingIntoFailedFileActions(t *testing.T) {
	drive(t, startDaemon(t), bkclient.SolveOpt{}, func(b bench) {
		src := llb.Scratch().File(llb.Mkdir("/foo", 0o700).Mkfile("/foo/bar", 0o600, []byte("src\n")))
		op, se := b.fails(shellState().File(llb.Mkfile("/made", 0o600, []byte("made\n")).Copy(src, "/foo/bar", "/notfound/baz")))
		file, ok := se.Subject.(*errdefs.Solve_File)
		if !ok || op.GetFile() == nil || file.File.Index != 1 || len(se.InputIDs) != 2 || len(se.MountIDs) != 2 {
			t.Fatalf("the error tells of %v", se.Solve)
		}
		action := op.GetFile().Actions[1]
		ctr := b.over([]gwclient.Mount{
			{Dest: "/", Ref: b.ref(shellState())}, {Dest: "/input", ResultID: se.MountIDs[1]}, {Dest: "/second", ResultID: se.InputIDs[action.SecondaryInput]},
		})
		b.says(ctr, "cat /input/made /second/foo/bar", "made\nsrc\n")
		b.release(ctr)
		if _, err := b.c.NewContainer(b.ctx, gwclient.NewContainerRequest{Mounts: []gwclient.Mount{{Dest: "/", ResultID: "none"}}}); grpcerrors.Code(err) != codes.NotFound {
			t.Errorf("a result that is not there: %v", err)
		}
	})
}

// fails solves what fails and returns what the error tells.
func (b bench) fails(st llb.State) (*pb.Op, *errdefs.SolveError) {
	b.t.Helper()
	def, err := st.Marshal(b.ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	_, err = b.c.Solve(b.ctx, gwclient.SolveRequest{Definition: def.ToPB(), Evaluate: true})
	var se *errdefs.SolveError
	if !errors.As(err, &se) || se.Op == nil {
		b.t.Fatalf("the error tells nothing of the step: %v", err)
	}
	return se.Op, se
}

func (b bench) over(mounts []gwclient.Mount) gwclient.Container {
	b.t.Helper()
	return b.container(func(r *gwclient.NewContainerRequest) { r.Mounts = mounts })
}

func TestLookingIntoWhatCannotBeRead(t *testing.T) {
	drive(t, startDaemon(t), bkclient.SolveOpt{}, func(b bench) {
		in := llb.Scratch().File(llb.Mkdir("/found", 0o700).Mkfile("/found/data", 0o600, []byte("data\n")))
		_, se := b.fails(shellState().Run(llb.Args([]string{"true"}), llb.AddMount("/src", in, llb.SourcePath("/notfound"), llb.Readonly)).Root())
		if cache, ok := se.Subject.(*errdefs.Solve_Cache); !ok || cache.Cache.Index != 1 || len(se.InputIDs) != 1 || len(se.MountIDs) != 0 {
			t.Fatalf("the error tells of %v", se.Solve)
		}
		ctr := b.over([]gwclient.Mount{{Dest: "/", Ref: b.ref(shellState())}, {Dest: "/problem", ResultID: se.InputIDs[0]}})
		b.says(ctr, "cat /problem/found/data", "data\n")
		b.release(ctr)
	})
}
