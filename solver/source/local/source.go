// Package local is the source of directories that lie with a client.
//
// Pinning syncs: the client's directory is streamed through the session into one immutable blob layer, in the order in which
// the client walks it. Its key is the digest of what was synced, without times, so that touching a file changes nothing.
//
// A client that gives *change hints* (see package filesync) is not asked twice for a file that did not change: the *manifest* of
// the layer made last of the same directory and patterns says which of its files can be copied from there, and when nothing
// changed at all that layer is the answer and nothing is read. Files of any other client are always transferred, and compared with that
// layer as they come: it is the answer if all are the same, and what comes before the first that is not is copied from there.
//
// A client on this host may let the source look itself (see package samehost). Then nothing is copied when pinning: files are digested,
// those that did not change since (by size, modification time, change time and inode) not even that, and the layer is *lent*: a view of the
// directory that reads files when they are copied, and fails rather than give anything but what was digested. The key is the same either way.
package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/filesync"
	"github.com/slipwaybuild/slipway/session/samehost"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/flight"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/source"
)

// Options goes with [New].
type Options struct {
	// Store takes the layers. Required.
	Store *layers.Store
	// Sessions finds the session that a request names. Required.
	Sessions *session.Manager
	// Host reaches directories of clients on this host; nil reaches none.
	Host *samehost.Host
	// Root is a directory for manifests and digests, owned by the source. Empty keeps none: every sync transfers everything.
	Root string
	// Limits bounds what a client may send. Zero fields take filesync's defaults.
	Limits filesync.Limits
	// Timeout ends a sync that takes longer; 0 is never.
	Timeout time.Duration
	// Logger may be nil.
	Logger *slog.Logger
}

// Source serves local://name. It is a [source.Source].
type Source struct {
	o     Options
	syncs *flight.Group[string, *synced]
	known *manifests
	sums  *sums

	keepers *keepers
	saving  sync.WaitGroup // one for every table being written
}

var _ source.Source = (*Source)(nil)

// synced is what a sync gave: a hold on a layer, and the digest of what is in it.
type synced struct {
	ref     *layers.Ref
	content digest.Digest
	view    *hostView // what was lent; nil if all was copied
}

// New returns the source. It is closed before the store.
func New(o Options) (*Source, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Source{o: o, keepers: newKeepers(o.Store, o.Logger)}
	sumsDir := ""
	if o.Root != "" {
		known, err := openManifests(filepath.Join(o.Root, "manifests"))
		if err != nil {
			return nil, fmt.Errorf("local source: %w", err)
		}
		s.known = known
		sumsDir = filepath.Join(o.Root, "sums")
	}
	var err error
	if s.sums, err = openSums(sumsDir); err != nil {
		return nil, fmt.Errorf("local source: %w", err)
	}
	s.syncs = flight.New[string](context.Background(), flight.Options[*synced]{
		Clone:   func(v *synced) *synced { return &synced{v.ref.Clone(), v.content, v.view} },
		Release: func(v *synced) { s.release(v.ref) },
	})
	return s, nil
}

// Close ends running syncs and waits for them.
func (s *Source) Close(ctx context.Context) error {
	err := s.syncs.Close(ctx)
	s.keepers.close()
	s.saving.Wait()
	return err
}

func (s *Source) release(r *layers.Ref) {
	if err := r.Release(); err != nil {
		s.o.Logger.Error("release layer of local source", "error", err)
	}
}

// Schemes implements [source.Source].
func (s *Source) Schemes() []string { return []string{"local"} }

// Pin syncs the directory. Those who want the same of the same session at the same time share one sync.
func (s *Source) Pin(ctx context.Context, env source.Env, r source.Request) (source.Pinned, error) {
	q, err := parse(r)
	if err != nil {
		return nil, fmt.Errorf("local source %s: %w", r.Identifier, err)
	}
	key := q.key()
	if q.session == "" {
		key += "\x00" + strings.Join(env.Sessions().Keys(), "\x00")
	} else {
		// Two clients that name a session of the same id each mean their own.
		key += fmt.Sprintf("\x00%q", env.Sessions().Owners())
	}
	v, err := s.syncs.Do(ctx, key, env, func() flight.Work[*synced] {
		return flight.Work[*synced]{Run: func(c *flight.Call) (*synced, error) { return s.sync(c, q) }}
	})
	if err != nil {
		return nil, fmt.Errorf("local source %q: %w", q.name, err)
	}
	return &pinned{s, v}, nil
}

// sync runs in a flight.
func (s *Source) sync(c *flight.Call, q *query) (*synced, error) {
	ctx := c.Context()
	if s.o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.o.Timeout, fmt.Errorf("not synced within %s", s.o.Timeout))
		defer cancel()
	}
	if q.session != "" {
		caller, err := group(c).Get(ctx, q.session)
		if err == nil {
			v, err := s.syncFrom(ctx, c, caller, q)
			if err == nil || !errors.Is(err, session.ErrNotSupported) && !over(caller) {
				return v, err
			}
		} else if !errors.Is(err, session.ErrNoSession) {
			return nil, err
		}
		// The session it names is gone or offers nothing: any of the build's may serve.
	}
	var out *synced
	err := group(c).Any(ctx, func(ctx context.Context, caller session.Caller) (err error) {
		out, err = s.syncFrom(ctx, c, caller, q)
		return err
	})
	return out, err
}

func over(c session.Caller) bool {
	select {
	case <-c.Done():
		return true
	default:
		return false
	}
}

// group joins the sessions of those who wait now.
func group(c *flight.Call) *session.Group {
	var all []*session.Group
	for _, p := range c.Participants() {
		all = append(all, p.(source.Env).Sessions())
	}
	return session.Join(all...)
}

// attempts is how often a sync is tried when files change while they are read.
const attempts = 3

func (s *Source) syncFrom(ctx context.Context, c *flight.Call, caller session.Caller, q *query) (*synced, error) {
	p := newProgress(c, q.name)
	v, err := s.syncHost(ctx, caller, q, p.add)
	if err == nil || ctx.Err() != nil {
		p.done()
		return v, err
	}
	if !errors.Is(err, samehost.ErrUnavailable) {
		s.o.Logger.Debug("directory is read through the session", "dir", q.name, "error", err)
	}
	for range attempts {
		var v *synced
		v, err = (&run{s: s, q: q, caller: caller, progress: p}).do(ctx)
		var changed *filesync.ChangedError
		if err == nil || !errors.As(err, &changed) {
			p.done()
			return v, err
		}
		s.o.Logger.Debug("sync again", "dir", q.name, "error", err)
	}
	p.done()
	return nil, err
}

// pinned is one owner's hold on what was synced.
type pinned struct {
	s *Source
	v *synced
}

// Key implements [source.Pinned]. The directory's name is not in it: the same files are the same input whatever they are called.
func (p *pinned) Key() solver.Parts {
	return solver.Parts{{Name: "source", Value: "local"}, {Name: "content", Value: p.v.content.String()}}
}

// Fetch implements [source.Pinned].
func (p *pinned) Fetch(context.Context, source.Env) (*layers.Ref, error) {
	if err := p.v.stale(); err != nil {
		return nil, err
	}
	return p.v.ref.Clone(), nil
}

// Close implements [source.Pinned].
func (p *pinned) Close() error { return p.v.ref.Release() }
