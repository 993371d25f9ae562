package ops

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/secrets"
	"github.com/slipwaybuild/slipway/session/ssh"
	"github.com/slipwaybuild/slipway/solver/executor"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// services asks the sessions there are at the moment of asking.
type services struct {
	sessions func() *session.Group
	learned  func(id string, value []byte) // hears of secrets before the step gets them; may be nil
	mounts   CacheMounts                   // nil: new cache mounts begin as they say
	progress progress.Writer
}

// CacheMounts knows what new cache mounts hold at first, from what clients import.
type CacheMounts interface {
	// Begin returns the content of the cache mount with an id; nil if none of the clients imports any. Whoever asked discards it, with
	// [layers.Store.Discard]. What is wrong with an import is told to progress, which may be nil, and hinders no step.
	Begin(ctx context.Context, sessions *session.Group, id string, p progress.Writer) (*layers.Ref, error)
}

// CacheMount asks for the content of a volume that is made.
func (s services) CacheMount(ctx context.Context, key string) (*layers.Ref, error) {
	if s.mounts == nil {
		return nil, nil
	}
	return s.mounts.Begin(ctx, s.sessions(), layers.VolumeID(key), s.progress)
}

// beginnings knows what new cache mounts of the step hold at first; nil if they begin as they say.
func (e *execOp) beginnings() CacheMounts {
	if e.emptied {
		return nil
	}
	return e.f.mounts
}

func (s services) Secret(ctx context.Context, id string) ([]byte, error) {
	g := s.sessions()
	dt, err := secrets.Get(ctx, g, id)
	if errors.Is(err, secrets.ErrNotFound) || nobody(g, err) {
		return nil, fmt.Errorf("%w: %w", executor.ErrNoSecret, err)
	}
	if err == nil && s.learned != nil {
		s.learned(id, dt)
	}
	return dt, err
}

func (s services) SSH(ctx context.Context, id string) error {
	g := s.sessions()
	return noSSH(g, ssh.Check(ctx, g, id))
}

func (s services) DialSSH(ctx context.Context, id string) (net.Conn, error) {
	g := s.sessions()
	c, err := ssh.Dial(ctx, g, id)
	return c, noSSH(g, err)
}

// nobody says whether there was no client to ask, which has nothing to offer: no reason to fail where the offer is optional. That
// clients there are cannot be reached is one.
func nobody(g *session.Group, err error) bool {
	return errors.Is(err, session.ErrNoSession) && len(g.IDs()) == 0
}

func noSSH(g *session.Group, err error) error {
	if errors.Is(err, ssh.ErrNotForwarded) || nobody(g, err) {
		return fmt.Errorf("%w: %w", executor.ErrNoSSH, err)
	}
	return err
}
