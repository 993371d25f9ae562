package upload_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/url"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/sessiontest"
	"github.com/slipwaybuild/slipway/session/upload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// source counts how often it was closed.
type source struct {
	io.Reader
	closed chan struct{}
}

func newSource(r io.Reader) *source { return &source{r, make(chan struct{}, 2)} }

func (s *source) Close() error { s.closed <- struct{}{}; return nil }

func pull(ctx context.Context, g *session.Group, where string) (io.ReadCloser, error) {
	u, err := url.Parse(where)
	if err != nil {
		return nil, err
	}
	return upload.Pull(ctx, g, u.Host, u.Path)
}

func TestPull(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<17)
	for name, content := range map[string][]byte{"big": data, "empty": nil, "small": []byte("x")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up, src := upload.New(), newSource(bytes.NewReader(content))
			where := up.Add(src)
			if !strings.HasPrefix(where, "http://"+upload.Host+"/") {
				t.Errorf("url %s", where)
			}
			g := sessiontest.Pair(t, up)
			r, err := pull(t.Context(), g, where)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); !bytes.Equal(got, content) || err != nil {
				t.Errorf("%d bytes, %v; want %d", len(got), err, len(content))
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			<-src.closed
			if _, err := pull(t.Context(), g, where); !errors.Is(err, upload.ErrNotFound) {
				t.Errorf("second pull: %v", err)
			}
			if err := up.Close(); err != nil || len(src.closed) != 0 {
				t.Errorf("close: %v, or a pulled reader was closed again", err)
			}
		})
	}
}

type broken struct{ sent bool }

func (b *broken) Read(p []byte) (int, error) {
	if b.sent {
		return 0, errors.New("pipe burst")
	}
	b.sent = true
	return copy(p, "half"), nil
}

func TestReaderThatFails(t *testing.T) {
	t.Parallel()
	up := upload.New()
	where := up.Add(io.NopCloser(&broken{}))
	r, err := pull(t.Context(), sessiontest.Pair(t, up), where)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if string(got) != "half" || err == nil || !strings.Contains(err.Error(), "pipe burst") {
		t.Errorf("%q, %v", got, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

type panicking struct{}

func (panicking) Read([]byte) (int, error) { panic("reader") }

func TestReaderThatPanicsFailsItsCallAlone(t *testing.T) {
	t.Parallel()
	up := upload.New()
	bad, good := up.Add(io.NopCloser(panicking{})), up.Add(io.NopCloser(strings.NewReader("fine")))
	g := sessiontest.Pair(t, up)
	if _, err := pull(t.Context(), g, bad); err == nil || !strings.Contains(err.Error(), "Internal") {
		t.Errorf("pull: %v", err)
	}
	r, err := pull(t.Context(), g, good)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); string(got) != "fine" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// TestClosingEarly: whoever has read enough closes, and the client's reader is closed too.
func TestClosingEarly(t *testing.T) {
	t.Parallel()
	up, src := upload.New(), newSource(endless{})
	where := up.Add(src)
	r, err := pull(t.Context(), sessiontest.Pair(t, up), where)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	<-src.closed
	unpulled := newSource(endless{})
	up.Add(unpulled)
	if err := up.Close(); err != nil {
		t.Error(err)
	}
	<-unpulled.closed
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// BenchmarkPull measures a session's throughput over a unix socket, through both doors.
func BenchmarkPull(b *testing.B) {
	const size = 64 << 20
	for _, door := range sessiontest.Doors() {
		b.Run(door.Name, func(b *testing.B) {
			m := sessiontest.NewManager(b, session.ManagerOptions{})
			s, up := session.New(session.Options{}), upload.New()
			s.Allow(up)
			g := m.Group(sessiontest.Run(b, m, door.Open(b, m), s).ID())
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				r, err := pull(b.Context(), g, up.Add(io.NopCloser(io.LimitReader(endless{}, size))))
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, r); n != size || err != nil {
					b.Fatal(n, err)
				}
				if err := r.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
