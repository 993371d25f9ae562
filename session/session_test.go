package session_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/buildkit/session/secrets"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/sessiontest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers a request for a secret with its id, or as the id demands.
type echo struct {
	started chan struct{} // receives when "hang" is asked for
}

func (e *echo) Register(s *grpc.Server) { secrets.RegisterSecretsServer(s, e) }

func (e *echo) GetSecret(ctx context.Context, req *secrets.GetSecretRequest) (*secrets.GetSecretResponse, error) {
	switch {
	case req.ID == "panic":
		panic("as asked")
	case req.ID == "hang":
		e.started <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	case req.ID == "missing":
		return nil, status.Error(codes.NotFound, "no such secret")
	case strings.HasPrefix(req.ID, "big"):
		return &secrets.GetSecretResponse{Data: make([]byte, 10<<20)}, nil
	}
	return &secrets.GetSecretResponse{Data: []byte(req.ID)}, nil
}

func ask(ctx context.Context, c session.Caller, id string) (string, error) {
	resp, err := secrets.NewSecretsClient(c.Conn()).GetSecret(ctx, &secrets.GetSecretRequest{ID: id})
	return string(resp.GetData()), err
}

func TestBothDoors(t *testing.T) {
	for _, door := range sessiontest.Doors() {
		t.Run(door.Name, func(t *testing.T) {
			t.Parallel()
			m := sessiontest.NewManager(t, session.ManagerOptions{})
			s := session.New(session.Options{Name: "ctx", SharedKey: "schlüssel: 1+1"})
			s.Allow(&echo{})
			c := sessiontest.Run(t, m, door.Open(t, m), s)

			if c.ID() != s.ID() || len(c.ID()) != 25 {
				t.Errorf("id %q, want %q of 25 characters", c.ID(), s.ID())
			}
			if c.Name() != "ctx" || c.SharedKey() != "schlüssel: 1+1" {
				t.Errorf("name %q, shared key %q", c.Name(), c.SharedKey())
			}
			for _, method := range []string{secrets.Secrets_GetSecret_FullMethodName, "/MOBY.buildkit.secrets.v1.secrets/getsecret", grpc_health_v1.Health_Watch_FullMethodName} {
				if !c.Supports(method) {
					t.Errorf("%s is not announced", method)
				}
			}
			if c.Supports("/moby.upload.v1.Upload/Pull") {
				t.Error("a method is announced that nobody registered")
			}
			if got, err := ask(t.Context(), c, "hello"); got != "hello" || err != nil {
				t.Errorf("call: %q, %v", got, err)
			}
			if got, err := ask(t.Context(), c, "big"); len(got) != 10<<20 || err != nil {
				t.Errorf("10 MiB answer: %d bytes, %v", len(got), err)
			}
			if _, err := ask(t.Context(), c, "panic"); status.Code(err) != codes.Internal {
				t.Errorf("panic: %v, want codes.Internal", err)
			}
			if got, err := ask(t.Context(), c, "still here"); got != "still here" || err != nil {
				t.Errorf("call after a panic: %q, %v", got, err)
			}
		})
	}
}

func TestClosedSessionIsNoticedAtOnce(t *testing.T) {
	for _, door := range sessiontest.Doors() {
		t.Run(door.Name, func(t *testing.T) {
			t.Parallel()
			m := sessiontest.NewManager(t, session.ManagerOptions{Wait: time.Hour, Grace: 300 * time.Millisecond, Health: session.Health{Interval: time.Hour}})
			s := session.New(session.Options{})
			e := &echo{started: make(chan struct{}, 1)}
			s.Allow(e)
			dialer := door.Open(t, m)
			c := sessiontest.Run(t, m, dialer, s)

			failed := make(chan error, 1)
			go func() { _, err := ask(t.Context(), c, "hang"); failed <- err }()
			<-e.started
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			<-c.Done()
			if err := <-failed; status.Code(err) != codes.Unavailable {
				t.Errorf("call in progress: %v, want Unavailable", err)
			}
			if _, err := ask(t.Context(), c, "x"); status.Code(err) != codes.Unavailable {
				t.Errorf("later call: %v, want Unavailable", err)
			}
			err := m.Group(s.ID()).Any(t.Context(), func(context.Context, session.Caller) error { return errors.New("called") })
			if !errors.Is(err, session.ErrNoSession) || !strings.Contains(err.Error(), s.ID()) {
				t.Errorf("Any on a session that is over: %v", err)
			}

			again := session.New(session.Options{ID: s.ID()})
			again.Allow(&echo{})
			if got, err := ask(t.Context(), sessiontest.Run(t, m, dialer, again), "back"); got != "back" || err != nil {
				t.Errorf("reconnected with the same id: %q, %v", got, err)
			}
		})
	}
}

func TestLateSessionIsWaitedFor(t *testing.T) {
	t.Parallel()
	m := sessiontest.NewManager(t, session.ManagerOptions{Wait: time.Hour})
	dialer := sessiontest.HTTP(t, m)
	s := session.New(session.Options{})
	s.Allow(&echo{})
	type answer struct {
		text string
		err  error
	}
	got := make(chan answer, 2)
	waiting := make(chan struct{}, 2)
	go func() {
		waiting <- struct{}{}
		c, err := m.Get(t.Context(), "context:"+s.ID())
		if err != nil {
			got <- answer{err: err}
			return
		}
		text, err := ask(t.Context(), c, "late")
		got <- answer{text, err}
	}()
	go func() {
		waiting <- struct{}{}
		var text string
		err := m.Group(s.ID()).Any(t.Context(), func(ctx context.Context, c session.Caller) (err error) {
			text, err = ask(ctx, c, "late")
			return err
		})
		got <- answer{text, err}
	}()
	<-waiting
	<-waiting
	sessiontest.Run(t, m, dialer, s)
	for range 2 {
		if a := <-got; a.text != "late" || a.err != nil {
			t.Errorf("got %q, %v", a.text, a.err)
		}
	}
}

func TestSessionThatNeverArrives(t *testing.T) {
	t.Parallel()
	m := sessiontest.NewManager(t, session.ManagerOptions{Wait: 20 * time.Millisecond})
	_, err := m.Get(t.Context(), "nosuchsession")
	if !errors.Is(err, session.ErrNoSession) || !strings.Contains(err.Error(), "nosuchsession did not arrive within 20ms") {
		t.Errorf("Get: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("build cancelled")
	cancel(why)
	if _, err := m.Get(ctx, "nosuchsession"); !errors.Is(err, why) || !strings.Contains(err.Error(), "nosuchsession") {
		t.Errorf("Get with an ended context: %v", err)
	}
	if err := m.Group().Any(t.Context(), nil); !errors.Is(err, session.ErrNoSession) {
		t.Errorf("empty group: %v", err)
	}
	var none *session.Group
	if err := none.Any(t.Context(), nil); !errors.Is(err, session.ErrNoSession) {
		t.Errorf("nil group: %v", err)
	}
}

func TestGroupTriesOneAfterAnother(t *testing.T) {
	t.Parallel()
	m := sessiontest.NewManager(t, session.ManagerOptions{Wait: time.Hour})
	dialer := sessiontest.HTTP(t, m)
	plain, able := session.New(session.Options{ID: "plain"}), session.New(session.Options{ID: "able"})
	able.Allow(&echo{})
	sessiontest.Run(t, m, dialer, plain)
	sessiontest.Run(t, m, dialer, able)
	g := session.Join(m.Group("plain"), nil, m.Group("p:able", "plain", ""))
	if got := fmt.Sprint(g.IDs()); got != "[plain able]" {
		t.Errorf("ids %s", got)
	}
	var asked []string
	err := g.Any(t.Context(), func(ctx context.Context, c session.Caller) error {
		asked = append(asked, c.ID())
		_, err := ask(ctx, c, "x")
		return err
	})
	if err != nil || fmt.Sprint(asked) != "[plain able]" {
		t.Errorf("asked %v: %v", asked, err)
	}

	var calls atomic.Int32
	err = g.Any(t.Context(), func(ctx context.Context, c session.Caller) error {
		if calls.Add(1) == 1 {
			return fmt.Errorf("no: %w", session.ErrNotSupported)
		}
		_, err := ask(ctx, c, "missing")
		return err
	})
	if status.Code(err) != codes.NotFound || calls.Load() != 2 {
		t.Errorf("an error of the service itself: %v after %d calls", err, calls.Load())
	}

	err = m.Group("plain").Any(t.Context(), func(ctx context.Context, c session.Caller) error {
		_, err := ask(ctx, c, "x")
		return err
	})
	if !errors.Is(err, session.ErrNoSession) || status.Code(err) != codes.Unimplemented {
		t.Errorf("a group in which nobody can: %v", err)
	}
}
