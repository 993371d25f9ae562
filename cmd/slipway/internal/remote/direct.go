package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
)

// Direct opens a connection to the daemon's socket and nothing on it, for what only such a connection can carry.
func (d *Daemon) Direct(ctx context.Context) (net.Conn, error) {
	if d.at.Network != "unix" {
		return nil, errors.New("the daemon is reached over a network")
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", d.at.Target)
	if err != nil {
		return nil, fmt.Errorf("connect to the daemon: %w", err)
	}
	return conn, nil
}
