package history

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/slipwaybuild/slipway/solver/progress"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// errKilled is how builds ended that a daemon did not live to see the end of.
var errKilled = status.Error(codes.Aborted, "the daemon ended while the build ran")

// recover reads what there is, makes records of builds that were running, and removes what belongs to no record.
func (s *Store) recover(ctx context.Context) error {
	if err := s.recoverNotes(ctx); err != nil {
		return err
	}
	list, err := s.db.records()
	if err != nil {
		if err = s.removeBad(err); err != nil {
			return err
		}
	}
	for _, kept := range list {
		s.ended[kept.record.Ref] = newEntry(kept)
		s.blobs.add(digests(kept.blobs)...)
	}
	ran, err := s.marked()
	if err != nil {
		return err
	}
	for _, r := range ran {
		// One that died between writing the record and removing the mark had ended well.
		if s.ended[r.Ref] == nil {
			if err := s.bury(ctx, r); err != nil {
				return err
			}
		}
		if err := s.unmark(r.Ref); err != nil {
			return err
		}
	}
	return errors.Join(s.blobs.sweep(ctx), s.sweepJournals())
}

// removeBad forgets records that cannot be read, telling of it: one of them must not keep the daemon from starting.
func (s *Store) removeBad(err error) error {
	var joined interface{ Unwrap() []error }
	errs := []error{err}
	if errors.As(err, &joined) {
		errs = joined.Unwrap()
	}
	for _, err := range errs {
		var bad *badRecordError
		if !errors.As(err, &bad) {
			return err
		}
		s.log.Warn("forget a build whose record cannot be read", "ref", bad.ref, "error", err)
		if err := s.db.remove(bad.ref); err != nil {
			return err
		}
	}
	return nil
}

// bury makes the record of a build that was running when the daemon died.
func (s *Store) bury(ctx context.Context, r *controlapi.BuildHistoryRecord) error {
	kept := saved{record: r}
	ended := r.CreatedAt.AsTime()
	if j, err := progress.Open(s.journalPath(r.Ref)); err != nil {
		s.log.Warn("read the story of a build whose daemon died", "ref", r.Ref, "error", err)
	} else if sum, logs, err := s.storeLogs(ctx, j); err != nil {
		s.log.Warn("read the story of a build whose daemon died", "ref", r.Ref, "error", err)
	} else {
		sum.fill(r)
		r.Logs = apiDescriptor(logs)
		kept.blobs = append(kept.blobs, logs.Digest.String())
		if sum.last.After(ended) {
			ended = sum.last
		}
	}
	r.CompletedAt = timestamppb.New(ended)
	st, full, err := s.storeError(ctx, errKilled)
	if err != nil {
		return err
	}
	r.Error, r.ExternalError = st, apiDescriptor(full)
	kept.blobs = append(kept.blobs, full.Digest.String())
	if err := s.put(kept); err != nil {
		return fmt.Errorf("write record of build %s: %w", r.Ref, err)
	}
	s.ended[r.Ref] = newEntry(kept)
	s.log.Info("a build ended with the daemon that ran it", "ref", r.Ref, "began", r.CreatedAt.AsTime().Format(time.RFC3339))
	return nil
}

// sweepJournals removes journals that belong to no record.
func (s *Store) sweepJournals() error {
	needed := map[string]bool{}
	for ref := range s.ended {
		needed[s.journalPath(ref)] = true
	}
	dir, err := os.ReadDir(s.journalDir())
	errs := []error{err}
	for _, f := range dir {
		if path := filepath.Join(s.journalDir(), f.Name()); !needed[path] {
			errs = append(errs, os.Remove(path))
		}
	}
	return errors.Join(errs...)
}
