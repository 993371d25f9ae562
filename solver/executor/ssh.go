package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
)

// checkSSH makes sure that every agent a step wants is there. Mounts whose optional agent nobody has become absent.
func checkSSH(ctx context.Context, svc Services, mounts []*mount) error {
	for _, m := range mounts {
		if m.Type != MountSSH {
			continue
		}
		err := ErrNoSSH
		if svc != nil {
			err = svc.SSH(ctx, m.ID)
		}
		switch {
		case err == nil:
		case errors.Is(err, ErrNoSSH) && m.Optional:
			m.absent = true
		case errors.Is(err, ErrNoSSH):
			return &MissingSSHError{ID: m.ID, Err: err}
		default:
			return fmt.Errorf("ssh agent %s: %w", m.ID, err)
		}
	}
	return nil
}

// agent is a socket in a vault whose connections are piped to a client's ssh agent.
type agent struct {
	listener net.Listener
	cancel   context.CancelFunc
	wg       sync.WaitGroup
}

// serveAgent listens on the socket name until close is called.
func serveAgent(ctx context.Context, name string, m *mount, svc Services, log *slog.Logger) (*agent, error) {
	l, err := listenUnix(name)
	if err != nil {
		return nil, fmt.Errorf("listen for ssh agent %s: %w", m.ID, err)
	}
	if err := own(name, m.Mode, m.UID, m.GID); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for ssh agent %s: %w", m.ID, err), l.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	a := &agent{listener: l, cancel: cancel}
	a.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			a.wg.Go(func() {
				if err := pipeAgent(ctx, conn, m.ID, svc); err != nil {
					log.WarnContext(ctx, "ssh agent connection ended", "agent", m.ID, "error", err)
				}
			})
		}
	})
	return a, nil
}

// close ends the socket and every connection, and waits for them.
func (a *agent) close() error {
	a.cancel()
	err := a.listener.Close()
	a.wg.Wait()
	return err
}

func pipeAgent(ctx context.Context, conn net.Conn, id string, svc Services) error {
	defer func() { _ = conn.Close() }() // what could be lost was lost when the copy ended
	remote, err := svc.DialSSH(ctx, id)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() {
		_ = conn.Close()
		_ = remote.Close()
	})
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(remote, conn) // a connection ends when either side does; how is no one's concern
		closeWrite(remote)
	}()
	_, _ = io.Copy(conn, remote)
	// The agent has said all it will: the client gets the end, and the other copy ends with it.
	_ = conn.Close()
	<-done
	return remote.Close()
}

func closeWrite(c net.Conn) {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
		return
	}
	_ = c.Close()
}

// listenUnix listens on a socket at any path: the kernel takes no more than 107 bytes of one, so the directory is named by
// descriptor.
func listenUnix(name string) (net.Listener, error) {
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(name))})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // by then the descriptor in its name is another's
	return l, nil
}
