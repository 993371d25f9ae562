package ops

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/source"
)

// sourceOp brings something in from outside. It pins once, in Key, and fetches exactly what it pinned.
type sourceOp struct {
	f   *Factory
	ans *source.Answers
	src source.Source
	req source.Request

	mu     sync.Mutex // guards what follows
	pinned source.Pinned
	users  int  // fetches under way
	closed bool // by the build; the last fetch closes pinned
}

func (l *Loader) sourceOp(op *pb.SourceOp, platform ocispecs.Platform, inputs int) (solver.Op, int, error) {
	if op == nil {
		return nil, 0, errors.New("source op is empty")
	}
	if inputs != 0 {
		return nil, 0, fmt.Errorf("source op with %d inputs", inputs)
	}
	src, err := l.f.source(op.Identifier)
	if err != nil {
		return nil, 0, err
	}
	return &sourceOp{
		f:   l.f,
		ans: l.o.Answers,
		src: src,
		req: source.Request{Identifier: op.Identifier, Attrs: op.Attrs, Platform: platform, OldModes: l.o.OldModes},
	}, 1, nil
}

// Key pins the source, the first time it is asked.
func (s *sourceOp) Key(ctx context.Context, call solver.Call) (solver.Parts, error) {
	p, err := s.pin(ctx, call)
	if err != nil {
		return nil, err
	}
	defer s.unpin()
	parts := solver.Parts{{Name: "op", Value: "source"}}
	return append(parts, p.Key()...), nil
}

func (s *sourceOp) Selector(int) solver.Selector { return nil }

func (s *sourceOp) Run(ctx context.Context, call solver.Call, _ []solver.Result) ([]solver.Result, error) {
	p, err := s.pin(ctx, call)
	if err != nil {
		return nil, err
	}
	defer s.unpin()
	ref, err := p.Fetch(ctx, envOf(call))
	if err != nil {
		return nil, err
	}
	return []solver.Result{NewResult(ref)}, nil
}

// pin returns what the request meant when it was first asked for, for use until unpin. An error is not remembered: the next
// build that waits may have the session or the credentials that this one lacked.
func (s *sourceOp) pin(ctx context.Context, call solver.Call) (source.Pinned, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed && s.pinned == nil {
		return nil, fmt.Errorf("source %s: its build has ended", s.req.Identifier)
	}
	if s.pinned == nil {
		env := envOf(call)
		env.Answers = s.ans
		p, err := s.src.Pin(ctx, env, s.req)
		if err != nil {
			return nil, err
		}
		s.pinned = p
	}
	s.users++
	return s.pinned, nil
}

func (s *sourceOp) unpin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users--
	if err := s.release(); err != nil {
		s.f.log.Warn("close source", "source", s.req.Identifier, "err", err)
	}
}

// Close gives back what pinning took. A fetch that is under way for other builds is not disturbed.
func (s *sourceOp) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return s.release()
}

// release closes what is pinned once nobody needs it. s.mu is held.
func (s *sourceOp) release() error {
	if !s.closed || s.users > 0 || s.pinned == nil {
		return nil
	}
	p := s.pinned
	s.pinned = nil
	return p.Close()
}

// platformParts puts a platform into a key.
func platformParts(p ocispecs.Platform) solver.Parts {
	return solver.Parts{{Name: "platform", Value: platforms.FormatAll(p)}}
}
