package history

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/util/grpcerrors"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/daemon/progresspb"
	"github.com/slipwaybuild/slipway/solver/progress"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Media types of blobs, as BuildKit's clients know them.
const (
	LogsType  = "application/vnd.buildkit.status.v0"
	TraceType = "application/vnd.buildkit.otlp.json.v0"
	ErrorType = "application/vnd.googleapis.google.rpc.status+proto"
)

// End closes the story and makes the record: response is what the exporters answered, err why the build failed, nil if it did not. An
// error of the history's own is returned; the build's outcome does not depend on it. When it returns, the record can be read.
func (b *Build) End(ctx context.Context, response map[string]string, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sealTime)
	defer cancel()
	b.mu.Lock()
	ended := b.ended
	b.ended = true
	b.mu.Unlock()
	if ended {
		return errors.New("a build ends once")
	}
	completed := b.store.o.Now()
	errs := []error{b.journal.Close()}
	if !b.start.Unrecorded {
		errs = append(errs, b.seal(ctx, completed, response, err))
	}
	return errors.Join(append(errs, b.store.end(ctx, b))...)
}

// seal fills in the record. What cannot be stored is missing in it.
func (b *Build) seal(ctx context.Context, completed time.Time, response map[string]string, failure error) error {
	sum, logs, logErr := b.store.storeLogs(ctx, b.journal)
	var short *spb.Status
	var full ocispecs.Descriptor
	var errErr error
	if failure != nil {
		short, full, errErr = b.store.storeError(ctx, failure)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.record
	r.CompletedAt = timestamppb.New(completed)
	r.ExporterResponse = redactAll(response)
	b.maskRecord(r)
	r.Error = short
	if logErr == nil {
		b.blobs = append(b.blobs, logs.Digest)
		r.Logs = apiDescriptor(logs)
		sum.fill(r)
	}
	if failure != nil && errErr == nil {
		b.blobs = append(b.blobs, full.Digest)
		r.ExternalError = apiDescriptor(full)
	}
	if info := r.Result; info != nil && len(info.Results) > 0 {
		// Clients of before there were several results read the first.
		info.ResultDeprecated = info.Results[slices.Min(slices.Collect(maps.Keys(info.Results)))]
	}
	return errors.Join(logErr, errErr)
}

// summary counts the steps of a story.
type summary struct {
	state    map[string]stepState
	warnings int32
	last     time.Time // when something was last heard of the build
}

type stepState struct{ cached, completed bool }

func (s *summary) add(m *controlapi.StatusResponse) {
	s.warnings += int32(len(m.Warnings))
	for _, v := range m.Vertexes {
		s.step(v.Digest, v.Cached, v.Completed != nil)
		s.heard(v.Started)
		s.heard(v.Completed)
	}
	for _, l := range m.Logs {
		s.heard(l.Timestamp)
	}
}

// step notes what is heard of a step.
func (s *summary) step(id string, cached, completed bool) {
	if s.state == nil {
		s.state = map[string]stepState{}
	}
	st := s.state[id]
	s.state[id] = stepState{cached: st.cached || cached, completed: st.completed || completed}
}

func (s *summary) heard(t *timestamppb.Timestamp) {
	if t != nil && t.AsTime().After(s.last) {
		s.last = t.AsTime()
	}
}

func (s *summary) fill(r *controlapi.BuildHistoryRecord) {
	r.NumTotalSteps, r.NumWarnings = int32(len(s.state)), max(r.NumWarnings, s.warnings)
	for _, st := range s.state {
		if st.cached {
			r.NumCachedSteps++
		}
		if st.completed {
			r.NumCompletedSteps++
		}
	}
}

// storeLogs writes a finished story as a blob: status messages, each after its length in four bytes, lowest first.
func (s *Store) storeLogs(ctx context.Context, j *progress.Journal) (*summary, ocispecs.Descriptor, error) {
	sum := &summary{}
	desc, err := s.blobs.write(ctx, LogsType, func(w io.Writer) error {
		story, err := j.NewReader()
		if err != nil {
			return err
		}
		defer story.Close()
		for {
			batch, err := progresspb.Batch(func() (progress.Event, error) { return story.Next(ctx) }, story.Ready)
			if len(batch) > 0 {
				m := progresspb.Response(batch)
				sum.add(m)
				if err := writeMessage(w, m); err != nil {
					return err
				}
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
		}
	})
	if err != nil {
		return nil, desc, fmt.Errorf("store the log: %w", err)
	}
	return sum, desc, nil
}

func writeMessage(w io.Writer, m *controlapi.StatusResponse) error {
	b, err := m.MarshalVT()
	if err != nil || len(b) == 0 {
		return err
	}
	_, err = w.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

// storeError writes an error with all its details as a blob, and returns it without them.
func (s *Store) storeError(ctx context.Context, failure error) (*spb.Status, ocispecs.Descriptor, error) {
	st, ok := grpcerrors.AsGRPCStatus(grpcerrors.ToGRPC(ctx, failure))
	if !ok {
		st = status.New(codes.Unknown, failure.Error())
	}
	full := st.Proto()
	full.Message = redact(full.Message)
	short := &spb.Status{Code: full.Code, Message: full.Message}
	b, err := proto.Marshal(full)
	if err != nil {
		return short, ocispecs.Descriptor{}, fmt.Errorf("encode the error: %w", err)
	}
	desc, err := s.blobs.write(ctx, ErrorType, func(w io.Writer) error {
		_, err := io.Copy(w, bytes.NewReader(b))
		return err
	})
	return short, desc, err
}

// end moves a build from those that run to those that ended.
func (s *Store) end(ctx context.Context, b *Build) error {
	b.mu.Lock()
	kept := saved{record: b.record.CloneVT(), outcome: b.outcome.String()}
	for _, d := range b.blobs {
		kept.blobs = append(kept.blobs, d.String())
	}
	b.mu.Unlock()
	var err error
	if !b.start.Unrecorded {
		if err = s.db.note(kept); err != nil {
			err = errors.Join(fmt.Errorf("write record of build %s: %w", b.start.Ref, err), s.blobs.drop(ctx, digests(kept.blobs)...))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, b.start.Ref)
	unmarkErr := s.unmark(b.start.Ref)
	if b.start.Unrecorded || err != nil {
		s.loose = append(s.loose, looseEnd{ref: b.start.Ref, journal: b.journal})
		s.trimLoose()
		return errors.Join(err, unmarkErr, s.abandonTrace(b))
	}
	s.ended[b.start.Ref] = newEntry(kept)
	s.publish(controlapi.BuildHistoryEventType_COMPLETE, kept.record)
	s.startFinalizer(b)
	s.settleLater()
	s.retainLater()
	return unmarkErr
}

func newEntry(s saved) *entry {
	return &entry{completed: s.record.CompletedAt.AsTime(), pinned: s.record.Pinned, blobs: s.blobs}
}
