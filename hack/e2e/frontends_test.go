package e2e

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/slipwaybuild/slipway/solver/source/registry/registrytest"
	"google.golang.org/grpc/codes"
)

// frontendImage pushes an image of one program, /frontend, built from a package.
func frontendImage(t *testing.T, ref, pkg string, change func(*v1.Config)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "frontend")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	program := tarReg("frontend", read(t, path))
	program.Mode = 0o755
	img := imageOf(t, layerOf(t, tarOf(t, program)))
	cf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cf = cf.DeepCopy()
	cf.Config.Entrypoint = []string{"/frontend"}
	if change != nil {
		change(&cf.Config)
	}
	if img, err = mutate.ConfigFile(img, cf); err != nil {
		t.Fatal(err)
	}
	pushImage(t, ref, img)
}

// TestDockerfileFrontendAsImage runs BuildKit's own Dockerfile frontend as an image.
func TestDockerfileFrontendAsImage(t *testing.T) {
	d := startDaemon(t)
	ref := registrytest.New(t, registrytest.Options{}).Host + "/dockerfile:x"
	frontendImage(t, ref, "github.com/moby/buildkit/frontend/dockerfile/cmd/dockerfile-frontend", func(c *v1.Config) {
		c.Labels = map[string]string{
			"moby.buildkit.frontend.network.none": "true",
			"moby.buildkit.frontend.caps":         "moby.buildkit.frontend.inputs,moby.buildkit.frontend.subrequests,moby.buildkit.frontend.contexts",
		}
	})
	dockerfile := "# syntax=" + ref + "\n" + drivenDockerfile + "ARG COLOUR=red\n"
	dir := dirWithBusybox(t, map[string]string{"Dockerfile": dockerfile})
	t.Run("by our command", func(t *testing.T) {
		out := t.TempDir()
		r := d.build("-o", out, dir)
		if got := read(t, out, "hello"); got != "hello\n" {
			t.Errorf("the output is %q", got)
		}
		if !strings.Contains(r.all(), "docker-image://"+ref) {
			t.Errorf("the frontend's image was not asked for:\n%s", r.all())
		}
	})
	t.Run("by BuildKit's client", func(t *testing.T) {
		out := t.TempDir()
		opt := bkclient.SolveOpt{Frontend: "dockerfile.v0", Exports: localOutput(out), LocalMounts: localDirs(t, dir, "context", "dockerfile")}
		if _, err := d.driver().Solve(t.Context(), nil, opt, nil); err != nil {
			t.Fatal(err)
		}
		if got := read(t, out, "hello"); got != "hello\n" {
			t.Errorf("the output is %q", got)
		}
	})
	t.Run("subrequests", func(t *testing.T) {
		for request, want := range map[string]string{
			"frontend.outline": "COLOUR", "frontend.targets": "base", "frontend.subrequests.describe": "frontend.outline", "frontend.lint": "",
		} {
			opt := bkclient.SolveOpt{
				Frontend: "dockerfile.v0", FrontendAttrs: map[string]string{"requestid": request, "frontend.caps": "moby.buildkit.frontend.subrequests"},
				LocalMounts: localDirs(t, dir, "context", "dockerfile"),
			}
			res, err := d.driver().Solve(t.Context(), nil, opt, nil)
			if err != nil {
				t.Errorf("%s: %v", request, err)
				continue
			}
			if got := res.ExporterResponse["result.json"]; !strings.Contains(got, want) {
				t.Errorf("%s: %s", request, got)
			}
		}
	})
	t.Run("a failing step", func(t *testing.T) {
		bad := dirWithBusybox(t, map[string]string{"Dockerfile": "# syntax=" + ref + "\nFROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \"exit 7\"]\n"})
		opt := bkclient.SolveOpt{Frontend: "dockerfile.v0", LocalMounts: localDirs(t, bad, "context", "dockerfile")}
		_, err := d.driver().Solve(t.Context(), nil, opt, nil)
		exits(t, err, 7)
		if sources := errdefs.Sources(err); len(sources) != 1 || sources[0].Ranges[0].Start.Line != 4 {
			t.Errorf("the lines are %v", sources)
		}
		r := d.run("build", "--progress", "plain", bad)
		if r.code == 0 || !strings.Contains(r.all(), ">>> RUN") {
			t.Errorf("exit %d\n%s", r.code, r.all())
		}
	})
	t.Run("a mistake", func(t *testing.T) {
		bad := write(t, map[string]string{"Dockerfile": "# syntax=" + ref + "\nFROM scratch\nMISTAKE\n"})
		opt := bkclient.SolveOpt{Frontend: "dockerfile.v0", LocalMounts: localDirs(t, bad, "context", "dockerfile")}
		_, err := d.driver().Solve(t.Context(), nil, opt, nil)
		if sources := errdefs.Sources(err); err == nil || !strings.Contains(err.Error(), "unknown instruction: MISTAKE") || len(sources) != 1 {
			t.Errorf("got %v with the lines %v", err, sources)
		}
	})
}

// programs is a daemon and a frontend of ours.
type programs struct {
	t   *testing.T
	d   *daemon
	ref string
}

func newPrograms(t *testing.T, change func(*v1.Config), args ...string) programs {
	p := programs{t, startDaemon(t, args...), registrytest.New(t, registrytest.Options{}).Host + "/own/frontend:1"}
	frontendImage(t, p.ref, "./frontend", change)
	return p
}

// solve runs the frontend in a mode and returns the output directory.
func (p programs) solve(mode string, change ...func(*bkclient.SolveOpt)) (string, error) {
	p.t.Helper()
	out := p.t.TempDir()
	opt := bkclient.SolveOpt{Frontend: "gateway.v0", FrontendAttrs: map[string]string{"source": p.ref, "mode": mode}, Exports: localOutput(out)}
	for _, f := range change {
		f(&opt)
	}
	_, err := p.d.driver().Solve(p.t.Context(), nil, opt, nil)
	return out, err
}

func TestFrontendProgram(t *testing.T) {
	p := newPrograms(t, func(c *v1.Config) {
		c.Entrypoint = []string{"/frontend", "arg"}
		c.Env = append(c.Env, "OF_THE_IMAGE=yes")
		c.WorkingDir, c.User = "/work", "12"
		c.Labels = map[string]string{"moby.buildkit.frontend.caps": "moby.buildkit.frontend.inputs"}
	})
	out, err := p.solve("tell")
	if err != nil {
		t.Fatalf("%v\n%s", err, p.d.logText())
	}
	want := "args [\"arg\"]\ncwd /work\nuid 12\nimage yes\nproduct slipway\nworkers 1\nsession true\nopts [mode source]\ncurrent true <nil>\n"
	if got := read(t, out, "told"); got != want {
		t.Errorf("the frontend was told\n%s\nwant\n%s", got, want)
	}
	in := func(o *bkclient.SolveOpt) {
		o.FrontendInputs = map[string]llb.State{"in": llb.Scratch().File(llb.Mkfile("/f", 0o644, []byte("input")))}
	}
	if out, err = p.solve("input", in); err != nil {
		t.Fatal(err)
	}
	if got := read(t, out, "f") + read(t, out, "more"); got != "inputmore" {
		t.Errorf("with inputs: %q", got)
	}
	if out, err = p.solve("container"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, out, "said"); got != "usage: frontend\nexit code: 3" {
		t.Errorf("in its container: %q", got)
	}
	dir := write(t, map[string]string{"Dockerfile": "# syntax=" + p.ref + "\nwhatever this is\n"})
	out = t.TempDir()
	if r := p.d.build("-o", out, dir); !strings.Contains(r.all(), "a frontend speaks") {
		t.Errorf("what the frontend said is not in the log:\n%s", r.all())
	}
	if got := read(t, out, "told"); !strings.Contains(got, "cmdline") {
		t.Errorf("the frontend was told\n%s", got)
	}
}

func TestFrontendProgramsThatFail(t *testing.T) {
	p := newPrograms(t, nil)
	for mode, want := range map[string][]string{
		"error":            {"I would rather not"},
		"crash":            {"frontend " + p.ref, "exit code: 2"},
		"silent":           {"frontend " + p.ref, "ended without returning a result"},
		"garbage":          {"frontend " + p.ref, `wrote "hello\n" to its standard output`},
		"garbage and gone": {"frontend " + p.ref, `wrote "usage: frontend\n" to its standard output`},
		"babble":           {"frontend " + p.ref, "connection was lost before it returned a result"},
		"stay":             {"frontend " + p.ref, "then did not end within"},
		"fall":             {"frontend " + p.ref, "exit code: 5"},
		"again":            {"frontends at most"},
	} {
		t.Run(mode, func(t *testing.T) {
			_, err := p.solve(mode)
			if err == nil {
				t.Fatal("it succeeded")
			}
			for _, w := range want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("the error %q does not say %q", err, w)
				}
			}
			if left := processesNaming("/frontend\x00"); len(left) > 0 {
				t.Errorf("left running: %v", left)
			}
		})
	}
	t.Run("an unknown subrequest", func(t *testing.T) {
		_, err := p.solve("subrequest")
		var sub *errdefs.UnsupportedSubrequestError
		if !errors.As(err, &sub) || sub.Name != "frontend.none" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a client that goes", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		status := make(chan *bkclient.SolveStatus)
		ended := make(chan error, 1)
		go func() {
			opt := bkclient.SolveOpt{Frontend: "gateway.v0", FrontendAttrs: map[string]string{"source": p.ref, "mode": "wait"}}
			_, err := p.d.driver().Solve(ctx, nil, opt, status)
			ended <- err
		}()
		for s := range status {
			for _, l := range s.Logs {
				if strings.Contains(string(l.Data), "waiting") {
					cancel()
				}
			}
		}
		if err := <-ended; err == nil {
			t.Error("it succeeded")
		}
		waitFor(t, "the frontend to end", func() bool { return len(processesNaming("/frontend\x00")) == 0 })
	})
	t.Run("capabilities", func(t *testing.T) {
		for _, change := range []func(*bkclient.SolveOpt){
			func(o *bkclient.SolveOpt) { o.FrontendInputs = map[string]llb.State{"in": llb.Scratch()} },
			func(o *bkclient.SolveOpt) { o.FrontendAttrs["frontend.caps"] = "moby.buildkit.frontend.inputs+forward" },
		} {
			_, err := p.solve("tell", change)
			var unsupported *errdefs.UnsupportedFrontendCapError
			if !errors.As(err, &unsupported) || unsupported.Name != "moby.buildkit.frontend.inputs" || grpcerrors.Code(err) != codes.Unimplemented {
				t.Errorf("got %v", err)
			}
		}
	})
	t.Run("no image", func(t *testing.T) {
		_, err := p.solve("tell", func(o *bkclient.SolveOpt) { o.FrontendAttrs["source"] += "none" })
		if err == nil || !strings.Contains(err.Error(), "not found") {
			t.Errorf("got %v", err)
		}
	})
}

func TestFrontendFromContext(t *testing.T) {
	p := newPrograms(t, nil)
	named := func(o *bkclient.SolveOpt) {
		o.FrontendAttrs["source"] = "somewhere/else"
		o.FrontendAttrs["context:somewhere/else"] = "docker-image://" + p.ref
	}
	out, err := p.solve("tell", named)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, out, "told"); !strings.Contains(got, "opts [context:somewhere/else mode source]") {
		t.Errorf("the frontend was told\n%s", got)
	}
}

func TestAllowedFrontends(t *testing.T) {
	dir := write(t, map[string]string{"c.toml": "[frontend.\"gateway.v0\"]\nallowedRepositories = [\"docker/dockerfile\", \"example.com/fine\"]\n"})
	p := newPrograms(t, nil, "--config", filepath.Join(dir, "c.toml"))
	if _, err := p.solve("tell"); err == nil || !strings.Contains(err.Error(), "is not an allowed gateway source") {
		t.Errorf("got %v", err)
	}
	src := write(t, map[string]string{"Dockerfile": "# syntax=docker/dockerfile:1\nFROM scratch\nCOPY Dockerfile /\n"})
	p.d.build(src)
}

func TestDrivenFrontendImage(t *testing.T) {
	p := newPrograms(t, nil)
	out := t.TempDir()
	_, err := p.d.driver().Build(t.Context(), bkclient.SolveOpt{Exports: localOutput(out)}, "test", func(ctx context.Context, c gwclient.Client) (*gwclient.Result, error) {
		return c.Solve(ctx, gwclient.SolveRequest{Frontend: "gateway.v0", FrontendOpt: map[string]string{"source": p.ref}})
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, out, "told"); !strings.Contains(got, "product slipway") {
		t.Errorf("the frontend was told\n%s", got)
	}
}
