package local

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/filesync"
	"github.com/slipwaybuild/slipway/session/samehost"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// spoolLimit bounds what one scan keeps of what it read, in bytes.
const spoolLimit = 256 << 20

// syncHost looks at the client's directory itself. Nothing is copied: the layer is lent, its contents come from the directory when
// they are asked for. Any error but the context's means that the session has to serve.
func (s *Source) syncHost(ctx context.Context, caller session.Caller, q *query, progress func(int64)) (*synced, error) {
	if s.o.Host == nil || q.metadata {
		return nil, samehost.ErrUnavailable
	}
	dir, err := s.o.Host.OpenDir(ctx, caller, q.name)
	if err != nil {
		return nil, err
	}
	v, err := s.scan(ctx, dir, q, progress)
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	labels := layers.Labels{Description: "local source for " + q.name, Use: layers.UseLocal}
	sum := v.sum()
	ref, err := s.o.Store.Lend(v, layers.ImportOptions{Labels: labels}, v.close)
	if err != nil {
		return nil, errors.Join(err, v.close())
	}
	s.keepers.watch(ref.IDs()[0], v)
	return &synced{ref: ref, content: sum, view: v}, nil
}

func (s *Source) scan(ctx context.Context, dir *samehost.Dir, q *query, progress func(int64)) (*hostView, error) {
	table, err := s.sums.of(dir.Key())
	if err != nil {
		s.o.Logger.Warn("digests of local source", "error", err)
	}
	entries := s.o.Limits.Entries
	if entries == 0 {
		entries = filesync.DefaultEntries
	}
	sc := &scan{
		dir: dir, table: table, trust: q.differ == "", limits: entries, progress: progress,
		spool: &spool{dir: s.spoolDir(), limit: spoolLimit},
	}
	err = sc.run(ctx, samehost.Selection{Include: q.include, Exclude: q.exclude, Follow: q.follow})
	if err == nil && !sc.spool.end() {
		for i := range sc.files {
			sc.files[i].kept = 0 // not kept after all: they are read again
		}
	}
	if err != nil {
		return nil, errors.Join(err, sc.spool.close())
	}
	s.saving.Go(func() {
		if err := s.sums.done(table); err != nil {
			s.o.Logger.Warn("remember digests of local source", "error", err)
		}
	})
	return newHostView(sc), nil
}

func (s *Source) spoolDir() string {
	if s.o.Root != "" {
		return s.o.Root
	}
	return os.TempDir()
}

// stale says of what was lent that it is not what it was; nil if that is not known.
func (v *synced) stale() error {
	if v.view == nil {
		return nil
	}
	if broken := v.view.broken.Load(); broken != nil {
		return fmt.Errorf("local source: %w", broken)
	}
	return nil
}
