//go:build linux

// Package samehosttest serves sessions and descriptors to tests, over a real unix socket.
package samehosttest

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/dial"
	"github.com/slipwaybuild/slipway/session/samehost"
	"github.com/slipwaybuild/slipway/session/sessiontest"
)

// Daemon is what clients connect to.
type Daemon struct {
	Sessions *session.Manager
	Host     *samehost.Host
	// Socket is its path. Everybody on the host may connect.
	Socket string
}

// Serve serves until the test ends.
func Serve(t testing.TB, m *session.Manager) *Daemon {
	t.Helper()
	h, err := samehost.NewHost(nil)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "sh") // whose name leaves room for a socket's
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{Sessions: m, Host: h, Socket: filepath.Join(dir, "s")}
	l, err := net.Listen("unix", d.Socket)
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o755), os.Chmod(d.Socket, 0o777))
	}
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(samehost.Path, h)
	mux.HandleFunc("/session", func(w http.ResponseWriter, r *http.Request) {
		if err := m.HandleHTTP(r.Context(), w, r); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: mux}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l) // ends with ErrServerClosed
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return d
}

// Dial connects to it.
func (d *Daemon) Dial(ctx context.Context) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", d.Socket)
}

// Dialer opens sessions at it.
func (d *Daemon) Dialer() session.Dialer { return dial.HTTP(d.Dial) }

// Client runs a session that offers o, with the daemon's address filled in, and returns the daemon's end of it.
func (d *Daemon) Client(t testing.TB, o samehost.Offer, services ...session.Attachable) session.Caller {
	t.Helper()
	o.Dial = d.Dial
	s := session.New(session.Options{})
	s.Allow(samehost.New(o))
	s.Allow(services...)
	return sessiontest.Run(t, d.Sessions, d.Dialer(), s)
}
