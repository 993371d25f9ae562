package history

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/progress"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// readLogs reads a log blob as BuildKit's daemon does.
func readLogs(t *testing.T, b []byte) (list []*controlapi.StatusResponse) {
	t.Helper()
	for len(b) > 0 {
		if len(b) < 4 {
			t.Fatalf("%d bytes at the end", len(b))
		}
		n := binary.LittleEndian.Uint32(b)
		m := &controlapi.StatusResponse{}
		if err := m.UnmarshalVT(b[4 : 4+n]); err != nil {
			t.Fatal(err)
		}
		list, b = append(list, m), b[4+n:]
	}
	return list
}

func TestRecordOfABuild(t *testing.T) {
	root := filepath.Join(t.TempDir(), "h")
	s := open(t, Options{Root: root})
	b := begin(t, s, Start{
		Ref: "one", Frontend: "dockerfile.v0",
		FrontendAttrs: map[string]string{"context": "https://user:token@host/r.git", "target": "t"},
		Exporters:     []*controlapi.Exporter{{Type: "image", Attrs: map[string]string{"name": "a"}}},
	})
	story(b, "hello")
	b.Append(progress.Event{Warning: &progress.Warning{Short: []byte("careful")}})
	attached := ocispecs.Descriptor{MediaType: "application/vnd.in-toto+json", Annotations: map[string]string{"in-toto.io/predicate-type": "p"}}
	if err := b.Attach(t.Context(), "linux/amd64", attached, strings.NewReader("{}")); err != nil {
		t.Fatal(err)
	}
	source := &errdefs.Source{Info: &pb.SourceInfo{Filename: "Dockerfile"}, Ranges: []*pb.Range{{Start: &pb.Position{Line: 3}}}}
	failure := grpcerrors.WrapCode(errdefs.WithSource(errors.New("no way to https://u:p@h/x"), source), codes.InvalidArgument)
	if err := b.End(t.Context(), map[string]string{"k": "v"}, failure); err != nil {
		t.Fatal(err)
	}
	before := record(t, s, "one")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = open(t, Options{Root: root})
	r := record(t, s, "one")
	if !proto.Equal(before, r) {
		t.Errorf("the record changed over a restart:\n%v\n%v", before, r)
	}
	if r.Frontend != "dockerfile.v0" || r.FrontendAttrs["context"] != "https://xxxxx:xxxxx@host/r.git" || r.FrontendAttrs["target"] != "t" ||
		r.Exporters[0].Type != "image" || r.Exporters[0].Attrs["name"] != "a" || r.ExporterResponse["k"] != "v" {
		t.Errorf("what was asked for and answered: %v", r)
	}
	if r.CreatedAt == nil || r.CompletedAt == nil || r.NumTotalSteps != 1 || r.NumCompletedSteps != 1 || r.NumCachedSteps != 0 || r.NumWarnings != 1 {
		t.Errorf("times and counts: %v", r)
	}
	if codes.Code(r.Error.Code) != codes.InvalidArgument || len(r.Error.Details) != 0 || strings.Contains(r.Error.Message, "u:p@") {
		t.Errorf("error: %v", r.Error)
	}
	var full spb.Status
	if err := proto.Unmarshal(readBlob(t, s, r.ExternalError), &full); err != nil {
		t.Fatal(err)
	}
	found := errdefs.Sources(grpcerrors.FromGRPC(status.ErrorProto(&full)))
	if len(found) != 1 || found[0].Info.Filename != "Dockerfile" {
		t.Errorf("sources in the error's blob: %v", found)
	}
	logs := readLogs(t, readBlob(t, s, r.Logs))
	if len(logs) == 0 || string(logs[0].Logs[0].Msg) != "hello" || r.Logs.MediaType != "application/vnd.buildkit.status.v0" {
		t.Errorf("logs: %v", logs)
	}
	att := r.Results["linux/amd64"].Attestations[0]
	if string(readBlob(t, s, att)) != "{}" || att.Annotations["in-toto.io/predicate-type"] != "p" || att.MediaType != attached.MediaType {
		t.Errorf("attestation: %v", att)
	}
	if got := told(t, s, "one"); got != "hello" {
		t.Errorf("the story after a restart is %q", got)
	}
	if err := s.Delete("one"); err != nil {
		t.Fatal(err)
	}
	if n := countBlobs(t, s); n != 0 {
		t.Errorf("%d blobs of a deleted build", n)
	}
	if _, err := s.Record("one"); !errors.Is(err, ErrNotFound) {
		t.Errorf("record of a deleted build: %v", err)
	}
}

// A build that runs tells how far it is.
func TestCountsWhileItRuns(t *testing.T) {
	s := open(t, Options{})
	b := begin(t, s, Start{Ref: "one"})
	now := time.Now()
	for _, v := range []progress.Vertex{{ID: "a", Started: &now}, {ID: "b", Started: &now, Completed: &now, Cached: true}, {ID: "a", Started: &now, Completed: &now}, {ID: "c"}} {
		b.Append(progress.Event{Vertex: &v})
	}
	if r := record(t, s, "one"); r.NumTotalSteps != 3 || r.NumCachedSteps != 1 || r.NumCompletedSteps != 2 {
		t.Errorf("%d steps, %d cached, %d done", r.NumTotalSteps, r.NumCachedSteps, r.NumCompletedSteps)
	}
	if err := b.End(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	if r := record(t, s, "one"); r.NumTotalSteps != 3 || r.NumCachedSteps != 1 || r.NumCompletedSteps != 2 {
		t.Errorf("at the end: %d steps, %d cached, %d done", r.NumTotalSteps, r.NumCachedSteps, r.NumCompletedSteps)
	}
}

func TestKilledDaemon(t *testing.T) {
	root := filepath.Join(t.TempDir(), "h")
	s := open(t, Options{Root: root})
	build(t, s, "whole", nil)
	b := begin(t, s, Start{Ref: "cut"})
	begin(t, s, Start{Ref: "check", Unrecorded: true})
	story(b, "half a story")
	if err := b.Attach(t.Context(), "", ocispecs.Descriptor{}, strings.NewReader("lost")); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	waitStory(t, s, "cut")
	if err := os.CopyFS(copied, os.DirFS(root)); err != nil { // what a killed daemon leaves
		t.Fatal(err)
	}
	// A crash may cut an entry, and leave a write that never ended.
	j, err := os.OpenFile(filepath.Join(copied, "journals", filepath.Base(s.journalPath("cut"))), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = j.Write([]byte{200, 1, 'L', 3})
	_ = j.Close()

	// Of the marks of running builds one was not written to its end, and one not removed in time.
	whole, err := record(t, s, "whole").MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	marks := filepath.Join(copied, "running")
	for name, b := range map[string][]byte{"torn": whole[:3], filepath.Base(s.markPath("whole")): whole} {
		if err := os.WriteFile(filepath.Join(marks, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	after := open(t, Options{Root: copied})
	r := record(t, after, "cut")
	if codes.Code(r.Error.Code) != codes.Aborted || !strings.Contains(r.Error.Message, "daemon ended") || r.ExternalError == nil || r.CompletedAt == nil {
		t.Errorf("record of a build that was cut short: %v", r)
	}
	if r.CompletedAt.AsTime().Before(r.CreatedAt.AsTime()) || r.NumTotalSteps != 1 {
		t.Errorf("ended at %v with %d steps", r.CompletedAt.AsTime(), r.NumTotalSteps)
	}
	if got := told(t, after, "cut"); got != "half a story" {
		t.Errorf("its story is %q", got)
	}
	if logs := readLogs(t, readBlob(t, after, r.Logs)); string(logs[0].Logs[0].Msg) != "half a story" {
		t.Errorf("its log is %v", logs)
	}
	if got := record(t, after, "whole"); got.Error != nil {
		t.Errorf("a build that had ended became %v", got)
	}
	// What belongs to no record is gone: the attachment, and the journal of the unrecorded build.
	if n := countBlobs(t, after); n != 3 {
		t.Errorf("%d blobs, want two logs and an error", n)
	}
	if dir, _ := os.ReadDir(filepath.Join(copied, "journals")); len(dir) != 2 {
		t.Errorf("journals: %v", dir)
	}
	if dir, _ := os.ReadDir(marks); len(dir) != 0 {
		t.Errorf("marks: %v", dir)
	}
	if err := b.End(t.Context(), nil, nil); err != nil {
		t.Error(err)
	}
}

// waitStory waits until what was appended can be read.
func waitStory(t *testing.T, s *Store, ref string) {
	t.Helper()
	r, err := s.Follow(t.Context(), ref, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for range 3 {
		if _, err := r.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDamagedRecordIsForgotten(t *testing.T) {
	root := filepath.Join(t.TempDir(), "h")
	s := open(t, Options{Root: root})
	build(t, s, "good", nil)
	build(t, s, "bad", nil)
	damage(t, s, "bad")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, Options{Root: root})
	if got := refs(list(t, s, &controlapi.BuildHistoryRequest{})); got != "good" {
		t.Errorf("records: %s", got)
	}
	if n := countBlobs(t, s); n != 1 {
		t.Errorf("%d blobs", n)
	}
}

func TestSameRefAgain(t *testing.T) {
	s := open(t, Options{})
	b := begin(t, s, Start{Ref: "r"})
	if _, err := s.Begin(Start{Ref: "r"}); !errors.Is(err, ErrRunning) {
		t.Errorf("a second build with the ref of one that runs: %v", err)
	}
	if err := s.Delete("r"); !errors.Is(err, ErrRunning) {
		t.Errorf("delete a build that runs: %v", err)
	}
	story(b, "first")
	if err := b.End(t.Context(), nil, errors.New("bad")); err != nil {
		t.Fatal(err)
	}
	if err := b.End(t.Context(), nil, nil); err == nil {
		t.Error("a build ended twice")
	}
	b = begin(t, s, Start{Ref: "r"})
	story(b, "second")
	if err := b.End(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	if got := told(t, s, "r"); got != "second" {
		t.Errorf("story %q", got)
	}
	if r := record(t, s, "r"); r.Error != nil {
		t.Errorf("record %v", r)
	}
	if n := countBlobs(t, s); n != 1 {
		t.Errorf("%d blobs", n)
	}
}

func TestUnrecorded(t *testing.T) {
	for name, o := range map[string]Options{"asked for": {}, "switched off": {MaxEntries: -1}} {
		t.Run(name, func(t *testing.T) {
			s := open(t, o)
			l := listen(t, s, &controlapi.BuildHistoryRequest{})
			defer l.leave()
			for i := range unrecorded + 5 {
				ref := fmt.Sprint("check", i)
				b := begin(t, s, Start{Ref: ref, Unrecorded: o.MaxEntries == 0, Trace: &fakeTrace{}})
				if b.Recorded() {
					t.Fatal("it says that it is recorded")
				}
				story(b, ref)
				if err := b.Attach(t.Context(), "", ocispecs.Descriptor{}, strings.NewReader("x")); err != nil {
					t.Fatal(err)
				}
				if err := b.End(t.Context(), nil, errors.New("x")); err != nil {
					t.Fatal(err)
				}
				if got := told(t, s, ref); got != ref {
					t.Errorf("a late viewer is told %q", got)
				}
			}
			if n := len(list(t, s, &controlapi.BuildHistoryRequest{})); n != 0 || len(l.events) != 0 || countBlobs(t, s) != 0 {
				t.Errorf("%d records, %d events", n, len(l.events))
			}
			dir, err := os.ReadDir(s.journalDir())
			if err != nil || len(dir) != unrecorded {
				t.Errorf("%d journals, %v", len(dir), err)
			}
		})
	}
}

func TestFollowWaits(t *testing.T) {
	s := open(t, Options{})
	if _, err := s.Follow(t.Context(), "none", 0); !errors.Is(err, ErrNotFound) {
		t.Errorf("follow nothing: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Follow(ctx, "none", time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("follow and give up: %v", err)
	}
	got := make(chan string)
	go func() { got <- told(t, s, "late") }()
	b := begin(t, s, Start{Ref: "late"})
	story(b, "from the beginning")
	if err := b.End(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	if text := <-got; text != "from the beginning" {
		t.Errorf("told %q", text)
	}
}

func TestReaderOutlivesItsRecord(t *testing.T) {
	s := open(t, Options{})
	build(t, s, "r", nil)
	logs := record(t, s, "r").Logs
	ra, err := s.Content().ReaderAt(t.Context(), ocispecs.Descriptor{Digest: ocispecs.DescriptorEmptyJSON.Digest})
	if err == nil {
		_ = ra.Close()
		t.Fatal("a blob that nobody wrote")
	}
	want := readBlob(t, s, logs)
	held := mustOpen(t, s, logs)
	defer held.Close()
	if err := s.Delete("r"); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.NewSectionReader(held, 0, logs.Size))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes of a deleted blob, %v", len(got), err)
	}
	if err := s.Delete("r"); !errors.Is(err, ErrNotFound) {
		t.Errorf("delete again: %v", err)
	}
	if _, err := os.Stat(s.journalPath("r")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the journal: %v", err)
	}
}
