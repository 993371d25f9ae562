package e2e

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/tonistiigi/fsutil"
	"google.golang.org/grpc/codes"
)

// localDirs makes the option of a local directory for names.
func localDirs(t *testing.T, dir string, names ...string) map[string]fsutil.FS {
	t.Helper()
	fs, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]fsutil.FS{}
	for _, n := range names {
		m[n] = fs
	}
	return m
}

func TestClientReadsWhatItSolved(t *testing.T) {
	c := startDaemon(t).driver()
	out := t.TempDir()
	_, err := c.Build(t.Context(), bkclient.SolveOpt{Exports: localOutput(out)}, "test", func(ctx context.Context, c gwclient.Client) (*gwclient.Result, error) {
		st := llb.Scratch().File(llb.Mkdir("/d", 0o755).Mkfile("/d/f", 0o640, []byte("0123456789")).Mkfile("/d/g", 0o644, nil))
		ref, err := refOf(ctx, c, st)
		if err != nil {
			return nil, err
		}
		if err := ref.Evaluate(ctx); err != nil {
			return nil, err
		}
		whole, err := ref.ReadFile(ctx, gwclient.ReadRequest{Filename: "/d/f"})
		if err != nil || string(whole) != "0123456789" {
			t.Errorf("the file: %q, %v", whole, err)
		}
		part, err := ref.ReadFile(ctx, gwclient.ReadRequest{Filename: "/d/f", Range: &gwclient.FileRange{Offset: 3, Length: 4}})
		if err != nil || string(part) != "3456" {
			t.Errorf("the range: %q, %v", part, err)
		}
		if st, err := ref.StatFile(ctx, gwclient.StatRequest{Path: "/d/f"}); err != nil || st.Size != 10 || st.Mode != 0o640 {
			t.Errorf("the file's description: %v, %v", st, err)
		}
		if list, err := ref.ReadDir(ctx, gwclient.ReadDirRequest{Path: "/d", IncludePattern: "g*"}); err != nil || len(list) != 1 || list[0].Path != "g" {
			t.Errorf("the directory: %v, %v", list, err)
		}
		_, err = ref.ReadFile(ctx, gwclient.ReadRequest{Filename: "/nothing"})
		if err == nil || grpcerrors.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "no such file or directory") {
			t.Errorf("a missing file: %v", err)
		}
		further, err := ref.ToState()
		if err != nil {
			return nil, err
		}
		def, err := further.File(llb.Mkfile("/further", 0o644, []byte("on"))).Marshal(ctx)
		if err != nil {
			return nil, err
		}
		return c.Solve(ctx, gwclient.SolveRequest{Definition: def.ToPB(), Evaluate: true})
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, out, "d", "f") + read(t, out, "further"); got != "0123456789on" {
		t.Errorf("the output is %q", got)
	}
}

func TestClientRunsDockerfileFrontend(t *testing.T) {
	d := startDaemon(t)
	dir := dirWithBusybox(t, map[string]string{"Dockerfile": drivenDockerfile})
	out := t.TempDir()
	opt := bkclient.SolveOpt{Exports: localOutput(out), LocalMounts: localDirs(t, dir, "context", "dockerfile")}
	_, err := d.driver().Build(t.Context(), opt, "test", func(ctx context.Context, c gwclient.Client) (*gwclient.Result, error) {
		res, err := c.Solve(ctx, gwclient.SolveRequest{Frontend: "dockerfile.v0", Evaluate: true})
		if err == nil && len(res.Metadata[exptypes.ExporterImageConfigKey]) == 0 {
			t.Error("the frontend's result has no image config")
		}
		return res, err
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, out, "hello"); got != "hello\n" {
		t.Errorf("the output is %q", got)
	}
}

func TestClientReturnsReferencePerPlatform(t *testing.T) {
	d := startDaemon(t)
	dir := write(t, map[string]string{"Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\n", "amd64": "a", "arm64": "b"})
	out := t.TempDir()
	opt := bkclient.SolveOpt{Exports: localOutput(out), LocalMounts: localDirs(t, dir, "context", "dockerfile")}
	_, err := d.driver().Build(t.Context(), opt, "test", func(ctx context.Context, c gwclient.Client) (*gwclient.Result, error) {
		return c.Solve(ctx, gwclient.SolveRequest{Frontend: "dockerfile.v0", FrontendOpt: map[string]string{"platform": "linux/amd64,linux/arm64"}})
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, out, "linux_amd64", "arch") + read(t, out, "linux_arm64", "arch"); got != "ab" {
		t.Errorf("the output is %q", got)
	}
}

func TestClientReturnsNothing(t *testing.T) {
	c := startDaemon(t).driver()
	empty := func(context.Context, gwclient.Client) (*gwclient.Result, error) { return gwclient.NewResult(), nil }
	if _, err := c.Build(t.Context(), bkclient.SolveOpt{Internal: true}, "test", empty, nil); err != nil {
		t.Error(err)
	}
	def, err := llb.Scratch().Marshal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Solve(t.Context(), def, bkclient.SolveOpt{}, nil); err != nil {
		t.Errorf("a definition of nothing: %v", err)
	}
}

func TestClientGetsItsInputs(t *testing.T) {
	d := startDaemon(t)
	out := t.TempDir()
	opt := bkclient.SolveOpt{
		Exports:        localOutput(out),
		FrontendInputs: map[string]llb.State{"in": llb.Scratch().File(llb.Mkfile("/f", 0o644, []byte("input")))},
	}
	_, err := d.driver().Build(t.Context(), opt, "test", func(ctx context.Context, c gwclient.Client) (*gwclient.Result, error) {
		inputs, err := c.Inputs(ctx)
		if err != nil {
			return nil, err
		}
		def, err := inputs["in"].Marshal(ctx)
		if err != nil {
			return nil, err
		}
		return c.Solve(ctx, gwclient.SolveRequest{Definition: def.ToPB()})
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, out, "f"); got != "input" {
		t.Errorf("the output is %q", got)
	}
}

func TestClientSeesWhatFailed(t *testing.T) {
	d := startDaemon(t)
	dir := dirWithBusybox(t, map[string]string{
		"Dockerfile": "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \"exit 7\"]\n",
	})
	opt := bkclient.SolveOpt{LocalMounts: localDirs(t, dir, "context", "dockerfile")}
	check := func(where string, err error) {
		t.Helper()
		var exit *gwpb.ExitError
		if !errors.As(err, &exit) || exit.ExitCode != 7 {
			t.Errorf("%s: the exit code is not told: %v", where, err)
		}
		var vertex *errdefs.VertexError
		if !errors.As(err, &vertex) || vertex.Digest == "" {
			t.Errorf("%s: the step is not told: %v", where, err)
		}
		sources := errdefs.Sources(err)
		if len(sources) != 1 || sources[0].Info.Filename != "Dockerfile" || sources[0].Ranges[0].Start.Line != 3 {
			t.Errorf("%s: the lines are %v", where, sources)
		}
	}
	_, err := d.driver().Build(t.Context(), opt, "test", func(ctx context.Context, c gwclient.Client) (*gwclient.Result, error) {
		res, err := c.Solve(ctx, gwclient.SolveRequest{Frontend: "dockerfile.v0"})
		if err != nil {
			return nil, err
		}
		err = res.Ref.Evaluate(ctx)
		check("Evaluate", err)
		return res, err
	}, nil)
	check("Build", err)
}

func TestClientReturnsErrorOfItsOwn(t *testing.T) {
	c := startDaemon(t).driver()
	_, err := c.Build(t.Context(), bkclient.SolveOpt{}, "test", func(context.Context, gwclient.Client) (*gwclient.Result, error) {
		return nil, grpcerrors.WrapCode(errors.New("not today"), codes.ResourceExhausted)
	}, nil)
	if err == nil || !strings.Contains(err.Error(), "not today") || grpcerrors.Code(err) != codes.ResourceExhausted {
		t.Errorf("got %v", err)
	}
}

func TestClientWarns(t *testing.T) {
	c := startDaemon(t).driver()
	status := make(chan *bkclient.SolveStatus)
	seen := make(chan []string, 1)
	go func() {
		var all []string
		for s := range status {
			for _, w := range s.Warnings {
				all = append(all, string(w.Short))
			}
		}
		seen <- all
	}()
	_, err := c.Build(t.Context(), bkclient.SolveOpt{}, "test", func(ctx context.Context, c gwclient.Client) (*gwclient.Result, error) {
		return gwclient.NewResult(), c.Warn(ctx, "", "careful", gwclient.WarnOpts{Level: 1})
	}, status)
	if err != nil {
		t.Fatal(err)
	}
	if all := <-seen; !slices.Equal(all, []string{"careful"}) {
		t.Errorf("viewers saw the warnings %q", all)
	}
}

func TestClientGoneEndsWhatItDrives(t *testing.T) {
	d := startDaemon(t)
	dir := dirWithBusybox(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := d.driver().Build(ctx, bkclient.SolveOpt{LocalMounts: localDirs(t, dir, "bb")}, "test", func(ctx context.Context, c gwclient.Client) (*gwclient.Result, error) {
			st := llb.Scratch().File(llb.Copy(llb.Local("bb"), "/busybox", "/busybox")).Run(llb.Args([]string{"/busybox", "sleep", "31415"})).Root()
			ref, err := refOf(ctx, c, st)
			if err != nil {
				return nil, err
			}
			return nil, ref.Evaluate(ctx)
		}, nil)
		ended <- err
	}()
	waitFor(t, "the step to run", func() bool { return len(processesNaming("sleep\x0031415")) > 0 })
	cancel()
	if err := <-ended; err == nil {
		t.Error("a cancelled build succeeded")
	}
	waitFor(t, "the step of a client that is gone to end", func() bool { return len(processesNaming("sleep\x0031415")) == 0 })
	waitFor(t, "the build to end", func() bool {
		return strings.Contains(read(t, filepath.Join(d.dir, "log")), "build ends")
	})
}
