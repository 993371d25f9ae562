package ops

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/secrets"
	"github.com/slipwaybuild/slipway/session/ssh"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/executor"
)

// services asks the sessions of the builds that wait at the moment of asking.
type services struct{ call solver.Call }

func servicesOf(call solver.Call) executor.Services { return services{call} }

func (s services) Secret(ctx context.Context, id string) ([]byte, error) {
	g := sessions(s.call)()
	dt, err := secrets.Get(ctx, g, id)
	if errors.Is(err, secrets.ErrNotFound) || nobody(g, err) {
		return nil, fmt.Errorf("%w: %w", executor.ErrNoSecret, err)
	}
	return dt, err
}

func (s services) SSH(ctx context.Context, id string) error {
	g := sessions(s.call)()
	return noSSH(g, ssh.Check(ctx, g, id))
}

func (s services) DialSSH(ctx context.Context, id string) (net.Conn, error) {
	g := sessions(s.call)()
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
