package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/slipwaybuild/slipway/solver/guard"
	"github.com/slipwaybuild/slipway/solver/ops"
	"github.com/slipwaybuild/slipway/solver/progress"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const hidden = "the-hidden/value+1"

func hiddenValues() *guard.Values {
	v := &guard.Values{}
	v.Learn("tok", []byte(hidden))
	return v
}

func TestMaskedErrors(t *testing.T) {
	m := hiddenValues().Matcher()
	for name, err := range map[string]error{
		"plain":           fmt.Errorf("open %s: %w", hidden, fs.ErrNotExist),
		"status":          fmt.Errorf("call: %w: %w", fs.ErrNotExist, status.Error(codes.NotFound, "no "+hidden)),
		"longer inside":   errors.Join(fs.ErrNotExist, status.Error(codes.NotFound, "no "+hidden+strings.Repeat("x", 100))),
		"coded":           grpcerrors.WrapCode(fmt.Errorf("%s: %w", hidden, fs.ErrNotExist), codes.NotFound),
		"with a location": errdefs.WithSource(fmt.Errorf("%s: %w", hidden, fs.ErrNotExist), &errdefs.Source{Info: &pb.SourceInfo{Filename: "Dockerfile"}}),
	} {
		masked := mask(m, err)
		st, _ := grpcerrors.AsGRPCStatus(grpcerrors.ToGRPC(context.Background(), WithCode(masked)))
		if strings.Contains(masked.Error(), hidden) || strings.Contains(st.Proto().String(), hidden) || !strings.Contains(masked.Error(), guard.Mask) {
			t.Errorf("%s: %v, sent as %v", name, masked, st.Proto())
		}
		if !errors.Is(masked, fs.ErrNotExist) || grpcerrors.Code(masked) != grpcerrors.Code(err) {
			t.Errorf("%s is no more what it was: %v, %s", name, masked, grpcerrors.Code(masked))
		}
	}
	harmless := status.Error(codes.NotFound, "nothing")
	if mask(m, harmless) != harmless || mask(m, nil) != nil || mask(nil, harmless) != harmless { //nolint:errorlint // the very same
		t.Error("what holds no secret is changed")
	}
}

func TestMaskMessage(t *testing.T) {
	op := &pb.Op{Op: &pb.Op_Exec{Exec: &pb.ExecOp{
		Meta:      &pb.Meta{Args: []string{"sh", "-c", "echo " + hidden}, Env: []string{"A=" + hidden, "B=b"}, ProxyEnv: &pb.ProxyEnv{HttpProxy: hidden}},
		Mounts:    []*pb.Mount{{Dest: "/" + hidden}},
		Secretenv: []*pb.SecretEnv{{ID: "tok", Name: "TOK"}},
	}}}
	m := hiddenValues().Matcher()
	maskMessage(m, op)
	if text, err := json.Marshal(op); err != nil || strings.Contains(op.String(), hidden) || strings.Count(string(text), guard.Mask) != 4 {
		t.Errorf("%v, %v", op, err)
	}
	source := &pb.Source{Infos: []*pb.SourceInfo{{Data: []byte("ENV " + hidden)}}, Locations: map[string]*pb.Locations{"x": {}}}
	maskMessage(m, source)
	if got := string(source.Infos[0].Data); got != "ENV ***" {
		t.Errorf("%q", got)
	}
	maskMessage(m, nil)
	maskMessage(nil, op)
}

func TestConfigIsSearched(t *testing.T) {
	src := "FROM scratch\nLABEL x=y \\\n  my.label=z\nENV OTHER=1 TOKEN=2\nCMD x\n"
	ref := &reference{def: &pb.Definition{Source: &pb.Source{Infos: []*pb.SourceInfo{{Filename: "Dockerfile", Data: []byte(src)}}}}}
	for config, want := range map[string]string{
		`{"config": {"Env": ["PATH=/bin", "TOKEN=x%s"]}}`:            "config.Env[1], TOKEN @4",
		`{"config": {"Labels": {"my.label": "%s"}}}`:                 "config.Labels.my.label @3",
		`{"config": {"Labels": {"%s": ""}}}`:                         "config.Labels (a name) @0",
		`{"config": {"Cmd": ["sh", "-c", "%s"]}}`:                    "config.Cmd[2] @0",
		`{"history": [{"created_by": "RUN |1 TOKEN=%s /bin/true"}]}`: "history[0].created_by, TOKEN @4",
		`{"config": {"Env": ["A=nothing"]}}`:                         "",
	} {
		b := &build{values: hiddenValues(), leaks: &ops.Leaks{}, sink: progress.Discard}
		err := b.guardConfig(ref, []byte(strings.ReplaceAll(config, "%s", hidden)), b.values.Matcher())
		got := ""
		var leak *ops.LeakError
		if errors.As(err, &leak) {
			line := int32(0)
			for _, s := range errdefs.Sources(err) {
				line = s.Ranges[0].Start.Line
			}
			got = fmt.Sprintf("%s @%d", strings.TrimPrefix(leak.Where, "the image's config, "), line)
		} else if err != nil {
			t.Errorf("%s: %v", config, err)
		}
		if got != want {
			t.Errorf("%s: found %q, want %q", config, got, want)
		}
		b.leaks.Allow("tok")
		if err := b.guardConfig(ref, []byte(strings.ReplaceAll(config, "%s", hidden)), b.values.Matcher()); err != nil {
			t.Errorf("%s: allowed: %v", config, err)
		}
		mem := &progress.Memory{}
		b = &build{values: b.values, leaks: &ops.Leaks{WarnOnly: true}, sink: mem}
		if err := b.guardConfig(ref, []byte(strings.ReplaceAll(config, "%s", hidden)), b.values.Matcher()); err != nil || len(mem.Events()) != 1 && want != "" {
			t.Errorf("%s: warned of: %v, %v", config, err, mem.Events())
		}
	}
	b := &build{values: hiddenValues(), leaks: &ops.Leaks{}}
	if err := b.guardConfig(ref, []byte("{"), b.values.Matcher()); err == nil {
		t.Error("a config that is none is not an error")
	}
}

func TestLessonsAreAskedOnceAndWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lessons
		var asked atomic.Int32
		begun := time.Now()
		slow := func() {
			asked.Add(1)
			time.Sleep(10 * time.Second)
		}
		wait(t.Context(), learnFirst, []<-chan struct{}{l.ask("a", slow), l.ask("a", slow)})
		if took := time.Since(begun); asked.Load() != 1 || took != learnFirst {
			t.Errorf("asked %d times, waited %s", asked.Load(), took)
		}
		wait(t.Context(), learnLast, []<-chan struct{}{l.ask("a", slow)})
		if took := time.Since(begun); asked.Load() != 1 || took != 10*time.Second {
			t.Errorf("asked %d times, waited %s", asked.Load(), took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		wait(ctx, learnLast, []<-chan struct{}{make(chan struct{})})
		wait(t.Context(), learnLast, nil)
	})
}
