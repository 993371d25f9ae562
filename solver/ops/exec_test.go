package ops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/executor"
	"github.com/slipwaybuild/slipway/solver/executor/fake"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// withLimits gives every step of a definition limits, which have no place in LLB's ops.
func withLimits(def *pb.Definition) *pb.Definition {
	for _, md := range def.Metadata {
		md.LinuxResources = &pb.LinuxResources{Memory: 1 << 20, CpusetCpus: "0-1"}
	}
	return def
}

func TestExecSpec(t *testing.T) {
	e := newEngine(t)
	e.src.set("base", file{path: "f"})
	e.src.set("ctx", file{path: "in/"}, file{path: "in/x"})
	var got executor.Spec
	e.step = func(_ context.Context, c *fake.Call) error {
		got = c.Spec
		return nil
	}
	run := mem("base").
		AddEnv("A", "1").Dir("/srv").User("web").Hostname("box").
		AddExtraHost("db", []byte{10, 0, 0, 1}).
		AddUlimit("nofile", 10, 20).WithCgroupParent("kids").
		Run(
			llb.Args([]string{"x", "y z"}), llb.Network(pb.NetMode_HOST), llb.Security(pb.SecurityMode_INSECURE),
			llb.WithProxy(llb.ProxyEnv{HTTPProxy: "http://p", NoProxy: "local"}),
			llb.ValidExitCodes(0, 4),
			llb.WithDescription(map[string]string{DescriptionMountPoints: MountPointsKept}),
			llb.AddMount("/bind", mem("ctx"), llb.Readonly, llb.SourcePath("/in")),
			llb.AddMount("/cache", llb.Scratch(), llb.AsPersistentCacheDir("id", llb.CacheMountLocked)),
			llb.AddMount("/tmp", llb.Scratch(), llb.Tmpfs(llb.TmpfsSize(4096))),
			llb.AddSecret("/sec", llb.SecretID("s"), llb.SecretOptional, llb.SecretFileOpt(1, 2, 0o440)),
			llb.AddSecret("TOKEN", llb.SecretID("t"), llb.SecretAsEnv(true), llb.SecretOptional),
			llb.AddSSHSocket(llb.SSHID("agent"), llb.SSHSocketTarget("/ssh"), llb.SSHOptional),
		)
	out := run.AddMount("/out", llb.Scratch())
	def := withLimits(define(t, out))
	g, err := e.f.NewLoader(LoadOptions{Entitlements: []string{"network.host", "security.insecure"}}).Load(t.Context(), def)
	if err != nil {
		t.Fatal(err)
	}
	b := e.solver.NewBuild(solver.BuildOptions{})
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	r, err := b.Result(t.Context(), g.Edge())
	if err != nil {
		t.Fatal(err)
	}
	defer e.release(r)
	base, ctx := e.layer(file{path: "f"}), e.layer(file{path: "in/"}, file{path: "in/x"})
	defer e.f.release(base, ctx)
	want := executor.Spec{
		Args: []string{"x", "y z"},
		Env: []string{"A=1", "SSH_AUTH_SOCK=/ssh", "HTTP_PROXY=http://p", "http_proxy=http://p", "NO_PROXY=local", "no_proxy=local",
			"PATH=" + defaultPath},
		Cwd: "/srv", User: "web", Hostname: "box", CgroupParent: "kids", RemoveMountStubs: true, KeepMountPoints: true,
		Network: executor.NetworkHost, Security: executor.SecurityInsecure,
		ExtraHosts:     []executor.HostIP{{Host: "db", IP: "10.0.0.1"}},
		Ulimits:        []executor.Ulimit{{Name: "nofile", Soft: 10, Hard: 20}},
		ValidExitCodes: []int{0, 4},
		SecretEnvs:     []executor.SecretEnv{{ID: "t", Name: "TOKEN", Optional: true}},
		Resources:      executor.Resources{Memory: 1 << 20, CpusetCpus: "0-1"},
		Platform:       "linux/amd64",
		Mounts: []executor.Mount{
			{Dest: "/", Type: executor.MountBind, Layers: base.IDs(), Output: true},
			{Dest: "/bind", Type: executor.MountBind, Layers: ctx.IDs(), ReadOnly: true, Selector: "/in"},
			{Dest: "/cache", Type: executor.MountCache, CacheKey: "id", CacheSharing: layers.Locked},
			{Dest: "/out", Type: executor.MountBind, Output: true},
			{Dest: "/tmp", Type: executor.MountTmpfs, TmpfsSize: 4096},
			{Dest: "/sec", Type: executor.MountSecret, ID: "s", Mode: 0o440, UID: 1, GID: 2, Optional: true},
			{Dest: "/ssh", Type: executor.MountSSH, ID: "agent", Mode: 0o600, Optional: true},
		},
	}
	byDest := func(m []executor.Mount) {
		slices.SortFunc(m, func(a, b executor.Mount) int { return strings.Compare(a.Dest, b.Dest) })
	}
	byDest(got.Mounts)
	byDest(want.Mounts)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("spec (-want +got):\n%s", d)
	}
}

func TestExecKey(t *testing.T) {
	y := newYard(t, withFake)
	key := func(base llb.State, o ...llb.RunOption) string {
		o = append([]llb.RunOption{llb.Args([]string{"x"})}, o...)
		return fmt.Sprint(keyOf(t, y.load(base.Run(o...).Root())))
	}
	plain := key(mem("a"))
	cache := func(id string) llb.RunOption {
		return llb.AddMount("/c", llb.Scratch(), llb.AsPersistentCacheDir(id, llb.CacheMountShared))
	}
	for name, c := range map[string]struct {
		a, b string
		same bool
	}{
		"proxy":             {plain, key(mem("a"), llb.WithProxy(llb.ProxyEnv{HTTPProxy: "http://p"})), true},
		"cgroup parent":     {plain, key(mem("a").WithCgroupParent("x")), true},
		"cache id":          {key(mem("a"), cache("one")), key(mem("a"), cache("two")), true},
		"address of a host": {key(mem("a").AddExtraHost("h", []byte{1, 1, 1, 1})), key(mem("a").AddExtraHost("h", []byte{2, 2, 2, 2})), true},
		"name of a host":    {key(mem("a").AddExtraHost("h", []byte{1, 1, 1, 1})), key(mem("a").AddExtraHost("g", []byte{1, 1, 1, 1})), false},
		"where a digested mount lay": {
			key(mem("a"), llb.AddMount("/m", mem("b"), llb.Readonly, llb.SourcePath("/x"))),
			key(mem("a"), llb.AddMount("/m", mem("b"), llb.Readonly, llb.SourcePath("/y"))), true},
		"where a writable mount lay": {
			key(mem("a"), llb.AddMount("/m", mem("b"), llb.SourcePath("/x"))),
			key(mem("a"), llb.AddMount("/m", mem("b"), llb.SourcePath("/y"))), false},
		"mount points": {plain, key(mem("a"), llb.WithDescription(map[string]string{DescriptionMountPoints: MountPointsKept})), false},
		"other words":  {plain, key(mem("a"), llb.WithDescription(map[string]string{DescriptionMountPoints: "x", "a": "b"})), true},
		"env":          {plain, key(mem("a").AddEnv("A", "1")), false},
		"cwd":          {plain, key(mem("a").Dir("/x")), false},
		"user":         {plain, key(mem("a").User("x")), false},
		"network":      {plain, key(mem("a"), llb.Network(pb.NetMode_NONE)), false},
		"arguments":    {plain, key(mem("a"), llb.Args([]string{"x", ""})), false},
		"secret id":    {key(mem("a"), llb.AddSecret("/s", llb.SecretID("1"))), key(mem("a"), llb.AddSecret("/s", llb.SecretID("2"))), false},
		"mount":        {plain, key(mem("a"), cache("one")), false},
		"mount's end":  {key(mem("a"), llb.AddMount("/m", mem("b"))), key(mem("a"), llb.AddMount("/n", mem("b"))), false},
	} {
		if (c.a == c.b) != c.same {
			t.Errorf("%s: keys equal %v, want %v\n%s\n%s", name, c.a == c.b, c.same, c.a, c.b)
		}
	}
}

func TestMissingSecretIsTheLendersFault(t *testing.T) {
	e := newEngine(t)
	e.src.set("base")
	_, err := e.build(mem("base").Run(llb.Args([]string{"true"}), llb.AddSecret("/s", llb.SecretID("absent"))).Root(), LoadOptions{})
	var blamed *solver.LenderError
	if !errors.As(err, &blamed) || !strings.Contains(err.Error(), "absent") {
		t.Errorf("error %v, want a LenderError that names the secret", err)
	}
}

func TestMissingLayersAreALostInput(t *testing.T) {
	y := newYard(t, nil)
	e := &execOp{f: y.f, op: &pb.ExecOp{Meta: &pb.Meta{Args: []string{"x"}}}}
	a, b := y.result(file{path: "a"}), y.result(file{path: "b"})
	err := e.fail(&executor.MissingInputError{IDs: RefOf(b).IDs()}, []solver.Result{a, b})
	var lost *solver.LostError
	if !errors.As(err, &lost) || lost.Input != 1 {
		t.Errorf("error %v, want input 1 lost", err)
	}
}

func TestStepWithoutChangesKeepsItsLayer(t *testing.T) {
	e := newEngine(t)
	e.src.set("base", file{path: "f"})
	r := e.mustBuild(mem("base").Run(llb.Args([]string{"true"})).Root())
	if n := len(RefOf(r).IDs()); n != 2 {
		t.Errorf("%d layers, want one of the base and an empty one", n)
	}
}
