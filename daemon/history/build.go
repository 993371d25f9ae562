package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/progress"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Start says what is known of a build that begins.
type Start struct {
	Ref           string
	Frontend      string
	FrontendAttrs map[string]string
	Exporters     []*controlapi.Exporter
	// Unrecorded builds have a journal and no record.
	Unrecorded bool
	// Trace collects spans; nil for none.
	Trace Trace
	// Mask takes secrets out of what is kept when the build has ended; nil keeps it as it is. Those who watch builds are told when one
	// begins, before it used any.
	Mask func(string) string
}

// Trace is where the spans of a build are collected.
type Trace interface {
	// WriteTrace ends collecting and writes what came, story (which may be nil) among it. It returns how many spans it wrote; with
	// none there is no trace. It is called once.
	WriteTrace(w io.Writer, story *progress.Reader) (int, error)
}

// Build is a build that runs, and the [progress.Sink] of its story. Whoever began it ends it. Its methods are safe for concurrent
// use.
type Build struct {
	store   *Store
	start   Start
	journal *progress.Journal

	mu     sync.Mutex
	record *controlapi.BuildHistoryRecord // what is in it by now
	blobs  []digest.Digest                // counted, for the record
	// outcome is the one of blobs that tells what was made.
	outcome digest.Digest
	ended   bool
	sofar   summary // for those who ask while the build runs
}

var _ progress.Sink = (*Build)(nil)

// Begin remembers that a build runs and tells listeners. Credentials in URLs are masked. The record of an earlier build with the same
// ref is forgotten; while that runs the error is ErrRunning.
func (s *Store) Begin(start Start) (*Build, error) {
	start.Unrecorded = start.Unrecorded || !s.recording()
	b := &Build{store: s, start: start, record: s.newRecord(start)}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, errors.New("begin build: the history is closed")
	case s.running[start.Ref] != nil:
		return nil, fmt.Errorf("%w: %s", ErrRunning, start.Ref)
	}
	if err := s.forgetEarlier(start.Ref); err != nil {
		return nil, err
	}
	var err error
	if b.journal, err = progress.Create(s.journalPath(start.Ref)); err != nil {
		return nil, fmt.Errorf("open journal of build %s: %w", start.Ref, err)
	}
	if !start.Unrecorded {
		if err := s.mark(b.record); err != nil {
			return nil, errors.Join(err, b.journal.Close(), os.Remove(b.journal.Path()))
		}
		s.publish(controlapi.BuildHistoryEventType_STARTED, b.record.CloneVT())
	}
	s.running[start.Ref] = b
	close(s.arrived)
	s.arrived = make(chan struct{})
	return b, nil
}

func (s *Store) newRecord(start Start) *controlapi.BuildHistoryRecord {
	r := &controlapi.BuildHistoryRecord{
		Ref: start.Ref, Frontend: start.Frontend, FrontendAttrs: redactAll(start.FrontendAttrs), CreatedAt: timestamppb.New(s.o.Now()),
	}
	for _, e := range start.Exporters {
		r.Exporters = append(r.Exporters, &controlapi.Exporter{Type: e.Type, Attrs: redactAll(e.Attrs)})
	}
	return r
}

// forgetEarlier removes what is there of an ended build with the same ref. It is called under mu.
func (s *Store) forgetEarlier(ref string) error {
	if f := s.late[ref]; f != nil {
		f.abandon()
	}
	if s.ended[ref] != nil {
		if err := s.forget(ref); err != nil {
			return err
		}
	}
	for i, l := range s.loose {
		if l.ref == ref {
			s.loose = append(s.loose[:i], s.loose[i+1:]...)
			break
		}
	}
	if err := os.Remove(s.journalPath(ref)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove journal of an earlier build: %w", err)
	}
	return nil
}

// Append adds to the story. It waits for the disk only when a megabyte does.
func (b *Build) Append(ev progress.Event) {
	b.journal.Append(ev)
	if v := ev.Vertex; v != nil {
		b.mu.Lock()
		b.sofar.step(v.ID.String(), v.Cached, v.Completed != nil)
		b.mu.Unlock()
	}
}

// Attach stores what r holds beside the record, as an attestation of the result for platform, "" for a result without one. Media type
// and annotations are those of desc, such as the predicate type under "in-toto.io/predicate-type"; digest and size are found here.
func (b *Build) Attach(ctx context.Context, platform string, desc ocispecs.Descriptor, r io.Reader) error {
	if b.start.Unrecorded {
		return nil
	}
	d, err := b.store.blobs.write(ctx, desc.MediaType, func(w io.Writer) error {
		_, err := io.Copy(w, r)
		return err
	})
	if err != nil {
		return fmt.Errorf("attach to build %s: %w", b.start.Ref, err)
	}
	d.Annotations = desc.Annotations
	b.mu.Lock()
	defer b.mu.Unlock()
	b.blobs = append(b.blobs, d.Digest)
	info := b.info(platform)
	info.Attestations = append(info.Attestations, apiDescriptor(d))
	return nil
}

// info is where results for a platform are described. It is called under mu.
func (b *Build) info(platform string) *controlapi.BuildResultInfo {
	if platform == "" {
		if b.record.Result == nil {
			b.record.Result = &controlapi.BuildResultInfo{}
		}
		return b.record.Result
	}
	if b.record.Results == nil {
		b.record.Results = map[string]*controlapi.BuildResultInfo{}
	}
	if b.record.Results[platform] == nil {
		b.record.Results[platform] = &controlapi.BuildResultInfo{}
	}
	return b.record.Results[platform]
}

// Recorded tells whether there will be a record: attachments of a build without one are not worth making.
func (b *Build) Recorded() bool { return !b.start.Unrecorded }

func apiDescriptor(d ocispecs.Descriptor) *controlapi.Descriptor {
	return &controlapi.Descriptor{MediaType: d.MediaType, Digest: d.Digest.String(), Size: d.Size, Annotations: d.Annotations}
}

// sealTime bounds how long the end of a build may wait for the disk.
const sealTime = 5 * time.Minute
