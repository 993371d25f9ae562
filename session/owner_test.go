package session_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/peer"
	"github.com/slipwaybuild/slipway/session/sessiontest"
)

// open runs a session for a client of an identity until the test ends.
func open(t *testing.T, m *session.Manager, owner peer.Identity, id string) {
	t.Helper()
	s := session.New(session.Options{ID: id, Name: string(owner)})
	s.Allow(&echo{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Run(context.Background(), func(_ context.Context, _ string, meta map[string][]string) (net.Conn, error) {
			near, far := net.Pipe()
			go func() { _ = m.HandleConn(peer.NewContext(context.Background(), owner), far, meta) }()
			return near, nil
		})
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	// The manager of a test may wait for less time than a loaded machine needs.
	for deadline := time.Now().Add(20 * time.Second); ; {
		_, err := m.GroupOf(owner).Get(t.Context(), id)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// TestSessionsBelongToTheirClients is about ids that are known to others, and used by them.
func TestSessionsBelongToTheirClients(t *testing.T) {
	m := sessiontest.NewManager(t, session.ManagerOptions{Wait: 50 * time.Millisecond})
	open(t, m, "unix:1", "same")
	open(t, m, "unix:2", "same") // nobody can take an id from another
	open(t, m, "unix:1", "only-of-1")
	for _, owner := range []peer.Identity{"unix:1", "unix:2"} {
		err := m.GroupOf(owner, "same").Any(t.Context(), func(_ context.Context, c session.Caller) error {
			if c.Name() != string(owner) {
				t.Errorf("%s is given the session of %s", owner, c.Name())
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", owner, err)
		}
	}
	called := func(context.Context, session.Caller) error {
		t.Error("a stranger reaches the session")
		return nil
	}
	for name, g := range map[string]*session.Group{
		"another user": m.GroupOf("unix:2", "only-of-1"), "nobody": m.Group("only-of-1"), "the superuser": m.GroupOf(peer.Root, "only-of-1"),
	} {
		if err := g.Any(t.Context(), called); !errors.Is(err, session.ErrNoSession) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := g.Get(t.Context(), "only-of-1"); !errors.Is(err, session.ErrNoSession) {
			t.Errorf("%s asks by name: %v", name, err)
		}
	}
	if _, err := m.Get(t.Context(), "only-of-1"); !errors.Is(err, session.ErrNoSession) {
		t.Errorf("by id alone: %v", err)
	}
	// Work that two clients share may use the sessions of both.
	both := session.Join(m.GroupOf("unix:2", "same"), m.GroupOf("unix:1", "same"))
	if !slices.Equal(both.Owners(), []peer.Identity{"unix:2", "unix:1"}) || len(both.Keys()) != 2 || both.Keys()[0] == both.Keys()[1] {
		t.Errorf("joined: %q of %q", both.Keys(), both.Owners())
	}
	if c, err := both.Get(t.Context(), "only-of-1"); err != nil || c.Name() != "unix:1" {
		t.Errorf("by name, of one of both: %v, %v", c, err)
	}
}

// TestAnyLiveSessionServes has one of a build's two sessions go while it is used.
func TestAnyLiveSessionServes(t *testing.T) {
	m := sessiontest.NewManager(t, session.ManagerOptions{})
	dial := sessiontest.HTTP(t, m)
	first, second := session.New(session.Options{}), session.New(session.Options{})
	for _, s := range []*session.Session{first, second} {
		s.Allow(&echo{started: make(chan struct{}, 1)})
		sessiontest.Run(t, m, dial, s)
	}
	var used []string
	err := m.Group(first.ID(), second.ID()).Any(t.Context(), func(ctx context.Context, c session.Caller) error {
		used = append(used, c.ID())
		if c.ID() == first.ID() {
			time.AfterFunc(10*time.Millisecond, func() { _ = first.Close() })
			_, err := ask(ctx, c, "hang")
			return err
		}
		_, err := ask(ctx, c, "hello")
		return err
	})
	if err != nil || !slices.Equal(used, []string{first.ID(), second.ID()}) {
		t.Errorf("asked %q of %q and %q: %v", used, first.ID(), second.ID(), err)
	}
}

// TestStoppedClientIsWaitedFor is a client that answers nothing for a minute, its connection open, and then goes on.
func TestStoppedClientIsWaitedFor(t *testing.T) {
	for name, health := range map[string]bool{"with a health service": true, "without": false} {
		synctest.Test(t, func(t *testing.T) {
			m := session.NewManager(session.ManagerOptions{})
			s := session.New(session.Options{ID: "stopped"})
			s.Allow(&echo{})
			ran := make(chan error, 1)
			var line *pausable
			go func() {
				ran <- s.Run(context.Background(), func(_ context.Context, _ string, meta map[string][]string) (net.Conn, error) {
					near, far := net.Pipe()
					line = &pausable{Conn: near}
					if !health {
						for k, v := range meta {
							meta[k] = slices.DeleteFunc(slices.Clone(v), func(m string) bool { return strings.Contains(m, "health") })
						}
					}
					go func() { _ = m.HandleConn(context.Background(), far, meta) }()
					return line, nil
				})
			}()
			c, err := m.Get(t.Context(), "stopped")
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				time.AfterFunc(time.Minute, line.stop()) // the client is not scheduled
				began := time.Now()
				got, err := ask(t.Context(), c, "hello")
				if got != "hello" || err != nil || time.Since(began) < time.Minute {
					t.Errorf("%s: after %s %q, %v", name, time.Since(began), got, err)
				}
			}
			_ = s.Close()
			<-ran
			_ = m.Close()
		})
	}
}

// pausable hands on nothing while it is stopped.
type pausable struct {
	net.Conn
	mu   sync.Mutex
	gate chan struct{} // nil unless stopped
}

func (p *pausable) stop() (goOn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	gate := make(chan struct{})
	p.gate = gate
	return func() { close(gate) }
}

func (p *pausable) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	p.mu.Lock()
	gate := p.gate
	p.mu.Unlock()
	if gate != nil {
		<-gate
	}
	return n, err
}
