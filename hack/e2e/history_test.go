package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/proxy"
	cerrdefs "github.com/containerd/errdefs"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/moby/buildkit/util/tracing/delegated"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tonistiigi/fsutil"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// historian is BuildKit's client of a test about build records.
type historian struct {
	t *testing.T
	*client.Client
}

func (d *daemon) historian(opts ...client.ClientOpt) historian {
	d.t.Helper()
	return historian{d.t, d.client(d.t, opts...)}
}

// build builds a Dockerfile that may use busybox's shell.
func (h historian) build(ctx context.Context, opt client.SolveOpt, text string) error {
	h.t.Helper()
	dir := write(h.t, map[string]string{"Dockerfile": base + text})
	opt.Frontend = "dockerfile.v0"
	if opt.FrontendAttrs == nil {
		opt.FrontendAttrs = map[string]string{}
	}
	opt.FrontendAttrs["context:busybox"] = "local:busybox"
	opt.LocalMounts = map[string]fsutil.FS{"context": mount(h.t, dir), "dockerfile": mount(h.t, dir), "busybox": mount(h.t, busyboxDir(h.t))}
	_, err := h.Solve(ctx, nil, opt, nil)
	return err
}

func (h historian) list(r *controlapi.BuildHistoryRequest) (events []*controlapi.BuildHistoryEvent) {
	h.t.Helper()
	r.EarlyExit = true
	stream, err := h.ControlClient().ListenBuildHistory(h.t.Context(), r)
	if err != nil {
		h.t.Fatal(err)
	}
	if md, err := stream.Header(); err != nil || len(md.Get("buildkit-current-timestamp")) != 1 {
		h.t.Errorf("the daemon's time is not told: %v, %v", md, err)
	}
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return events
		}
		if err != nil {
			h.t.Fatal(err)
		}
		events = append(events, ev)
	}
}

func (h historian) record(ref string) *controlapi.BuildHistoryRecord {
	h.t.Helper()
	events := h.list(&controlapi.BuildHistoryRequest{Ref: ref})
	if len(events) != 1 || events[0].Record.Ref != ref || events[0].Type != controlapi.BuildHistoryEventType_COMPLETE {
		h.t.Fatalf("records of %s: %v", ref, events)
	}
	return events[0].Record
}

func (h historian) update(r *controlapi.UpdateBuildHistoryRequest) {
	h.t.Helper()
	if _, err := h.ControlClient().UpdateBuildHistory(h.t.Context(), r); err != nil {
		h.t.Fatal(err)
	}
}

// blob reads what a descriptor of a record names, through the content service.
func (h historian) blob(d *controlapi.Descriptor) []byte {
	h.t.Helper()
	if d == nil {
		h.t.Fatal("the record has no such blob")
	}
	b, err := content.ReadBlob(h.t.Context(), h.store(), ocispecs.Descriptor{Digest: digest.Digest(d.Digest), Size: d.Size})
	if err != nil {
		h.t.Fatal(err)
	}
	return b
}

func (h historian) store() content.Store { return proxy.NewContentStore(h.ContentClient()) }

func TestBuildRecords(t *testing.T) {
	d := startDaemon(t)
	h := d.historian()
	events, err := h.ControlClient().ListenBuildHistory(t.Context(), &controlapi.BuildHistoryRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := events.Header(); err != nil {
		t.Fatal(err)
	}
	image := []client.ExportEntry{{Type: client.ExporterImage, Attrs: map[string]string{"name": "example.com/recorded:1"}}}
	opt := client.SolveOpt{Ref: "good", Exports: image, FrontendAttrs: map[string]string{"build-arg:REMOTE": "https://u:secret@h/x"}}
	if err := h.build(t.Context(), opt, "RUN echo said by the step\n"); err != nil {
		t.Fatal(err)
	}
	if err := h.build(t.Context(), client.SolveOpt{Ref: "check", Internal: true}, "RUN echo unheard of\n"); err != nil {
		t.Fatal(err)
	}
	if err := h.build(t.Context(), client.SolveOpt{Ref: "bad"}, "RUN echo told before; exit 7\n"); err == nil {
		t.Fatal("a failing build succeeded")
	}
	var told []string
	for _, ref := range []string{"good", "bad"} {
		h.update(&controlapi.UpdateBuildHistoryRequest{Ref: ref, Finalize: true})
	}
	for traces := 0; traces < 2; {
		ev, err := events.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if ev.Record.Trace != nil {
			traces++ // whenever it comes, it comes last of a build
			continue
		}
		told = append(told, ev.Type.String()+" "+ev.Record.Ref)
	}
	if got := strings.Join(told, ", "); got != "STARTED good, COMPLETE good, STARTED bad, COMPLETE bad" {
		t.Errorf("told of %s", got)
	}

	checkGood(h, h.record("good"))
	checkBad(h, h.record("bad"))
	before := map[string]*controlapi.BuildHistoryRecord{"good": h.record("good"), "bad": h.record("bad")}
	d.stop()
	d.start()
	h = d.historian()
	for ref, want := range before {
		if got := h.record(ref); !proto.Equal(got, want) {
			t.Errorf("after a restart the record of %s is\n%v, before it was\n%v", ref, got, want)
		}
	}
	checkGood(h, h.record("good"))
	if logs, ended := lateStory(t, d, "good"); !strings.Contains(logs, "said by the step") || ended < 4 {
		t.Errorf("after a restart a late reader is told of %d steps, and %q", ended, logs)
	}
	if got := h.list(&controlapi.BuildHistoryRequest{}); len(got) != 2 {
		t.Errorf("records: %v", got)
	}
}

func checkGood(h historian, r *controlapi.BuildHistoryRecord) {
	h.t.Helper()
	t := h.t
	if r.Frontend != "dockerfile.v0" || strings.Contains(r.String(), "secret") || r.FrontendAttrs["build-arg:REMOTE"] == "" {
		t.Errorf("what was asked for: %v", r)
	}
	if len(r.Exporters) != 1 || r.Exporters[0].Type != "image" || r.ExporterResponse["containerimage.digest"] == "" || r.Error != nil {
		t.Errorf("what came of it: %v", r)
	}
	if r.NumTotalSteps < 4 || r.NumCompletedSteps != r.NumTotalSteps || r.CompletedAt.AsTime().Before(r.CreatedAt.AsTime()) {
		t.Errorf("its course: %v", r)
	}
	if b := h.blob(r.Logs); !bytes.Contains(b, []byte("said by the step")) {
		t.Errorf("the log of %d bytes lacks what was said", len(b))
	}
	var m ocispecs.Manifest
	if err := json.Unmarshal(h.blob(r.Result.GetResults()[0]), &m); err != nil || r.Result.ResultDeprecated.Digest != r.Result.Results[0].Digest {
		t.Errorf("the result: %v, %v", r.Result, err)
	}
	config := h.blob(&controlapi.Descriptor{Digest: string(m.Config.Digest), Size: m.Config.Size})
	if !bytes.Contains(config, []byte("rootfs")) {
		t.Errorf("the result's config: %s", config)
	}
	from := r.Result.GetAttestations()
	if len(from) != 1 || from[0].Annotations["in-toto.io/predicate-type"] != "https://slsa.dev/provenance/v1" || from[0].MediaType != "application/vnd.in-toto+json" {
		t.Fatalf("where it came from: %v", from)
	}
	if b := h.blob(from[0]); !bytes.Contains(b, []byte(`"build-arg:REMOTE"`)) || !bytes.Contains(b, []byte("echo said by the step")) || bytes.Contains(b, []byte("secret")) {
		t.Errorf("where it came from: %s", b)
	}
	if !bytes.Contains(h.blob(r.Trace), []byte("echo said by the step")) {
		t.Error("the trace lacks a step")
	}
}

func checkBad(h historian, r *controlapi.BuildHistoryRecord) {
	h.t.Helper()
	if r.Error == nil || !strings.Contains(r.Error.Message, "exit code: 7") || len(r.Error.Details) != 0 || r.Result != nil {
		h.t.Errorf("the record of a build that failed: %v", r)
	}
	var full spb.Status
	if err := proto.Unmarshal(h.blob(r.ExternalError), &full); err != nil {
		h.t.Fatal(err)
	}
	err := grpcerrors.FromGRPC(status.ErrorProto(&full))
	var ve *errdefs.VertexError
	if sources := errdefs.Sources(err); len(sources) != 1 || !errors.As(err, &ve) || sources[0].Ranges[0].Start.Line != 4 {
		h.t.Errorf("its error leads to %v", errdefs.Sources(err))
	}
}

func TestHistoryAsClientsAskIt(t *testing.T) {
	h := startDaemon(t).historian()
	if got := h.list(&controlapi.BuildHistoryRequest{Ref: "buildx-test-history-api-feature", ActiveOnly: true}); len(got) != 0 {
		t.Errorf("buildx's question is answered with %v", got)
	}
	for i := range 3 {
		attrs := map[string]string{"vcs:source": fmt.Sprintf("https://example.com/r%d.git", i)}
		if err := h.build(t.Context(), client.SolveOpt{Ref: fmt.Sprint("b", i), FrontendAttrs: attrs}, ""); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		r    *controlapi.BuildHistoryRequest
		want string
	}{
		{&controlapi.BuildHistoryRequest{Limit: 2}, "b2 b1"},
		{&controlapi.BuildHistoryRequest{Filter: []string{"ref==b0", "repository~=r1"}}, "b1 b0"},
		{&controlapi.BuildHistoryRequest{Filter: []string{"status==completed,startedAt>1h,duration<1h"}, Limit: 1}, "b2"},
		{&controlapi.BuildHistoryRequest{Filter: []string{"status==error"}}, ""},
		{&controlapi.BuildHistoryRequest{ActiveOnly: true}, ""},
	} {
		var refs []string
		for _, ev := range h.list(c.r) {
			refs = append(refs, ev.Record.Ref)
		}
		if got := strings.Join(refs, " "); got != c.want {
			t.Errorf("%v: %s, want %s", c.r, got, c.want)
		}
	}
	for _, r := range []*controlapi.BuildHistoryRequest{{Limit: -1}, {Filter: []string{"duration>long"}}} {
		stream, err := h.ControlClient().ListenBuildHistory(t.Context(), r)
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v", r, err)
		}
	}
	h.update(&controlapi.UpdateBuildHistoryRequest{Ref: "b0", Pinned: true})
	if r := h.record("b0"); !r.Pinned || r.Generation < 1 {
		t.Errorf("pinned: %v", r)
	}
	h.update(&controlapi.UpdateBuildHistoryRequest{Ref: "b1", Finalize: true})
	logs := h.record("b1").Logs
	h.update(&controlapi.UpdateBuildHistoryRequest{Ref: "b1", Delete: true})
	if _, err := h.store().Info(t.Context(), digest.Digest(logs.Digest)); !cerrdefs.IsNotFound(err) {
		t.Errorf("the log of a deleted build: %v", err)
	}
	for _, r := range []*controlapi.UpdateBuildHistoryRequest{{Ref: "b1", Pinned: true}, {Ref: "b1", Delete: true}, {Ref: ""}} {
		if _, err := h.ControlClient().UpdateBuildHistory(t.Context(), r); status.Code(err) != codes.NotFound && status.Code(err) != codes.InvalidArgument {
			t.Errorf("update %v: %v", r, err)
		}
	}
	if err := h.store().Delete(t.Context(), digest.Digest(h.record("b0").Logs.Digest)); err == nil {
		t.Error("a client deleted content")
	}
}

// A blob that somebody reads while its record is deleted is read to its end.
func TestDeletedWhileRead(t *testing.T) {
	h := startDaemon(t).historian()
	if err := h.build(t.Context(), client.SolveOpt{Ref: "r"}, "RUN head -c 3000000 /dev/urandom\n"); err != nil {
		t.Fatal(err)
	}
	listening, leave := context.WithCancel(t.Context())
	stream, err := h.ControlClient().ListenBuildHistory(listening, &controlapi.BuildHistoryRequest{Ref: "r"})
	if err != nil {
		t.Fatal(err)
	}
	ev, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	logs := ev.Record.Logs
	h.update(&controlapi.UpdateBuildHistoryRequest{Ref: "r", Delete: true})
	if b := h.blob(logs); digest.FromBytes(b) != digest.Digest(logs.Digest) {
		t.Error("the blob is another")
	}
	leave()
	waitFor(t, "the blob to go", func() bool {
		_, err := h.store().Info(t.Context(), digest.Digest(logs.Digest))
		return cerrdefs.IsNotFound(err)
	})
}

func TestDaemonKilledWhileItBuilds(t *testing.T) {
	d := startDaemon(t)
	h := d.historian()
	ended := make(chan error, 1)
	go func() {
		ended <- h.build(t.Context(), client.SolveOpt{Ref: "cut"}, "RUN echo told before the end; sleep 31415\n")
	}()
	waitFor(t, "the step to run", func() bool {
		return len(processesNaming("sleep\x0031415")) > 0 || len(processesNaming("sleep 31415")) > 0
	})
	if got := h.list(&controlapi.BuildHistoryRequest{ActiveOnly: true}); len(got) != 1 || got[0].Type != controlapi.BuildHistoryEventType_STARTED {
		t.Errorf("active builds: %v", got)
	}
	if _, err := h.ControlClient().UpdateBuildHistory(t.Context(), &controlapi.UpdateBuildHistoryRequest{Ref: "cut", Delete: true}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("delete a build that runs: %v", err)
	}
	waitFor(t, "the step to be heard", func() bool { return heard(t, h, "cut", "told before the end") })
	d.kill()
	if err := <-ended; err == nil {
		t.Error("a build whose daemon was killed succeeded")
	}
	d.start()
	waitFor(t, "what the killed daemon ran to end", func() bool { return len(processesNaming("sleep\x0031415")) == 0 })
	h = d.historian()
	r := h.record("cut")
	if codes.Code(r.Error.GetCode()) != codes.Aborted || r.ExternalError == nil || r.CompletedAt == nil || r.NumTotalSteps == 0 || r.NumCompletedSteps >= r.NumTotalSteps {
		t.Errorf("its record: %v", r)
	}
	if !bytes.Contains(h.blob(r.Logs), []byte("told before the end")) {
		t.Error("its log is not kept")
	}
	if logs, _ := lateStory(t, d, "cut"); !strings.Contains(logs, "told before the end") {
		t.Errorf("a late reader is told %q", logs)
	}
	if err := h.build(t.Context(), client.SolveOpt{Ref: "cut"}, "RUN echo again\n"); err != nil {
		t.Error(err)
	}
	if r := h.record("cut"); r.Error != nil {
		t.Errorf("built again: %v", r)
	}
}

// heard tells whether a build that runs has said text.
func heard(t *testing.T, h historian, ref, text string) bool {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	stream, err := h.ControlClient().Status(ctx, &controlapi.StatusRequest{Ref: ref})
	if err != nil {
		t.Fatal(err)
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return false
		}
		for _, l := range m.Logs {
			if strings.Contains(string(l.Msg), text) {
				return true
			}
		}
	}
}

// What a client did and what the daemon did for it is one trace.
func TestTraceOfClientAndDaemon(t *testing.T) {
	exporter := &delegated.Exporter{}
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	h := startDaemon(t).historian(client.WithTracerProvider(provider), client.WithTracerDelegate(exporter))
	ctx, span := provider.Tracer("test").Start(t.Context(), "all of the client's work")
	if err := h.build(ctx, client.SolveOpt{Ref: "traced"}, "RUN echo traced\n"); err != nil {
		t.Fatal(err)
	}
	span.End()
	if err := provider.ForceFlush(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.update(&controlapi.UpdateBuildHistoryRequest{Ref: "traced", Finalize: true})
	r := h.record("traced")
	if r.Trace.GetMediaType() != "application/vnd.buildkit.otlp.json.v0" {
		t.Fatalf("the trace: %v", r.Trace)
	}
	names := map[string]bool{}
	for dec := json.NewDecoder(bytes.NewReader(h.blob(r.Trace))); ; {
		var s struct {
			Name        string
			SpanContext struct{ TraceID string }
		}
		if err := dec.Decode(&s); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if s.SpanContext.TraceID != span.SpanContext().TraceID().String() {
			t.Errorf("span %q is in another trace", s.Name)
		}
		names[s.Name] = true
	}
	for _, name := range []string{"all of the client's work", "moby.buildkit.v1.Control/Solve", "[base 3/3] RUN echo traced"} {
		if !names[name] {
			t.Errorf("no span %q in %v", name, names)
		}
	}
}

// Builds that come all at once are all remembered, as many as the configuration says.
func TestManyBuildsAreRemembered(t *testing.T) {
	config := write(t, map[string]string{"c.toml": "[history]\nmaxEntries = 30\nmaxAge = 0\n"}) + "/c.toml"
	d := startDaemon(t, "--config", config)
	h := d.historian()
	if err := h.build(t.Context(), client.SolveOpt{}, ""); err != nil {
		t.Fatal(err)
	}
	todo := make(chan int)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range todo {
				if err := h.build(t.Context(), client.SolveOpt{Ref: fmt.Sprint("many", i)}, ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 200 {
		todo <- i
	}
	close(todo)
	wg.Wait()
	waitFor(t, "old records to go", func() bool { return len(h.list(&controlapi.BuildHistoryRequest{})) == 30 })
	for _, ev := range h.list(&controlapi.BuildHistoryRequest{Limit: 5}) {
		if b := h.blob(ev.Record.Logs); len(b) == 0 {
			t.Errorf("the log of %s is empty", ev.Record.Ref)
		}
	}
}

func TestHealth(t *testing.T) {
	d := startDaemon(t)
	h := d.historian()
	cc, err := grpc.NewClient("unix:"+d.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	r, err := healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || r.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", r, err)
	}
	info, err := h.Info(t.Context())
	if err != nil || info.BuildkitVersion.DockerfileVersion == "" || !strings.Contains(info.BuildkitVersion.Package, "slipway") {
		t.Errorf("info: %+v, %v", info.BuildkitVersion, err)
	}
}
