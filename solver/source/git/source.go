// Package git is the source of checkouts of git repositories.
//
// Pinning asks the remote which commit a ref means; for a commit no network is needed. Fetching brings that commit, without its
// history where the server allows it, into a *shared repository*, one bare repository per remote that later fetches build on,
// and checks it out into a layer. The shared repository is never a worktree's: each checkout has a repository of its own, thrown
// away with it, that only borrows the objects. So nothing one commit configures, submodules above all, is there for another.
package git

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"strconv"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/keylock"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/source"
)

// Options goes with [New].
type Options struct {
	// Store takes the layers, and its index the memory of checkouts. Required.
	Store *layers.Store
	// Sessions is where session groups come from.
	Sessions *session.Manager
	// Root is a directory for shared repositories and checkouts in the making, owned by the source. Required.
	Root string
	// Git is the git program; empty looks for one in PATH when it is needed.
	Git string
	// Logger may be nil.
	Logger *slog.Logger
}

// Source serves git://. It is a [source.Source].
type Source struct {
	o     Options
	mem   *memory
	locks keylock.Locks[string] // by remote: of its shared repository
}

var _ source.Source = (*Source)(nil)

// New returns the source.
func New(o Options) (*Source, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Git == "" {
		o.Git = "git"
	}
	if err := prepareRoot(o.Root); err != nil {
		return nil, fmt.Errorf("git source: %w", err)
	}
	mem, err := openMemory(o.Store.DB())
	if err != nil {
		return nil, fmt.Errorf("git source: %w", err)
	}
	return &Source{o: o, mem: mem}, nil
}

// Supported tells whether there is a git to work with: nil, or an error wrapping [ErrNoGit].
func (s *Source) Supported() error {
	if _, err := exec.LookPath(s.o.Git); err != nil {
		return fmt.Errorf("%w (%w)", ErrNoGit, err)
	}
	return nil
}

// Schemes implements [source.Source].
func (s *Source) Schemes() []string { return []string{"git"} }

// Pin implements [source.Source].
func (s *Source) Pin(ctx context.Context, env source.Env, r source.Request) (source.Pinned, error) {
	q, p, err := s.pin(ctx, env, r)
	if err != nil {
		return nil, fmt.Errorf("git source: %w", err)
	}
	return &pinned{s, q, p}, nil
}

func (s *Source) pin(ctx context.Context, env source.Env, r source.Request) (*query, pin, error) {
	q, err := parse(r)
	if err != nil {
		return nil, pin{}, err
	}
	p, ok := q.static()
	if !ok {
		if p, err = source.Answer(ctx, env.Answers, "git ref "+q.remote+"#"+q.ref, func(ctx context.Context) (pin, error) {
			return s.askRemote(ctx, env, q)
		}); err != nil {
			return nil, pin{}, err
		}
		if err := q.accepts(p); err != nil {
			return nil, pin{}, err
		}
	}
	if q.signature != nil {
		if err := s.verify(ctx, env, q, p); err != nil {
			return nil, pin{}, fmt.Errorf("%s: verify signature: %w", q.remote, err)
		}
	}
	return q, p, nil
}

func (s *Source) askRemote(ctx context.Context, env source.Env, q *query) (pin, error) {
	if err := s.Supported(); err != nil {
		return pin{}, err
	}
	g, done, err := s.command(ctx, env, q)
	if err != nil {
		return pin{}, err
	}
	defer done()
	return resolve(ctx, g, q)
}

// Metadata is what a ref of a remote means.
type Metadata struct {
	// Ref is the whole name of the ref, or the commit if that was asked for.
	Ref string
	// Checksum is the object the ref points at, CommitChecksum the commit if that object is an annotated tag.
	Checksum, CommitChecksum string
	// CommitObject and TagObject are the raw objects, if they were asked for; TagObject is nil if there is no annotated tag.
	CommitObject, TagObject []byte
}

// Resolve tells what a request means, for frontends. Its objects are fetched only if they are wanted.
func (s *Source) Resolve(ctx context.Context, env source.Env, r source.Request, objects bool) (*Metadata, error) {
	q, p, err := s.pin(ctx, env, r)
	if err != nil {
		return nil, fmt.Errorf("git source: %w", err)
	}
	m := &Metadata{Ref: p.Ref, Checksum: p.Object, CommitChecksum: p.Commit}
	if !objects {
		return m, nil
	}
	err = s.withRepository(ctx, env, q, p, func(g *git, _ string) error {
		o, err := readObjects(ctx, g, p)
		if err != nil {
			return err
		}
		m.CommitObject, m.TagObject = o.commit, o.tag
		if o.tag != nil {
			m.CommitChecksum = o.commitName
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("git source: %w", err)
	}
	return m, nil
}

// pinned is a commit to be checked out.
type pinned struct {
	s *Source
	q *query
	p pin
}

// Key implements [source.Pinned]. The remote is in it only where the checkout shows it.
func (p *pinned) Key() solver.Parts {
	parts := solver.Parts{
		{Name: "source", Value: "git"},
		{Name: "commit", Value: p.p.key(p.q)},
		{Name: "subdir", Value: p.q.subdir},
		{Name: "submodules", Value: strconv.FormatBool(!p.q.skipSubmodules)},
		{Name: "commit-times", Value: strconv.FormatBool(p.q.commitTimes)},
	}
	if p.q.oldModes {
		parts = append(parts, solver.Part{Name: "modes", Value: "old"})
	}
	if p.q.keepsGit() {
		parts = append(parts, solver.Part{Name: "remote", Value: p.q.remote}, solver.Part{Name: "ref", Value: p.p.Ref})
	}
	return parts
}

// Fetch implements [source.Pinned].
func (p *pinned) Fetch(ctx context.Context, env source.Env) (*layers.Ref, error) {
	key := p.q.snapshot(p.p)
	if ref := p.s.remembered(ctx, key); ref != nil {
		return ref, nil
	}
	if err := p.s.Supported(); err != nil {
		return nil, fmt.Errorf("git source: %w", err)
	}
	var ref *layers.Ref
	err := p.s.withRepository(ctx, env, p.q, p.p, func(g *git, repo string) (err error) {
		// Someone may have made it while this one waited for the repository.
		if ref = p.s.remembered(ctx, key); ref != nil {
			return nil
		}
		if ref, err = p.s.checkout(ctx, g, repo, p.q, p.p); err != nil {
			return err
		}
		return p.s.mem.put(key, ref.IDs()[0])
	})
	if err != nil {
		if ref != nil {
			err = errors.Join(err, ref.Release())
		}
		return nil, fmt.Errorf("git source: %w", err)
	}
	return ref, nil
}

// Name implements [source.Named]: the commit.
func (p *pinned) Name() string { return cmp.Or(p.p.Commit, p.p.Object) }

// Close implements [source.Pinned]: a pin holds nothing.
func (p *pinned) Close() error { return nil }

// remembered takes hold of the layer made under key, nil if there is none any more.
func (s *Source) remembered(ctx context.Context, key string) *layers.Ref {
	id, err := s.mem.get(key)
	if id == "" || err != nil {
		return nil
	}
	ref, err := s.o.Store.Pin(ctx, id)
	if err != nil {
		if !errors.Is(err, layers.ErrNotFound) {
			s.o.Logger.Warn("layer of git checkout", "error", err)
		}
		return nil
	}
	return ref
}
