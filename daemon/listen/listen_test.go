package listen

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSplitTellsProtocolsApart(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := Unix("unix://"+path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := NewSplit(slog.New(slog.DiscardHandler))
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()

	for text, q := range map[string]*Queue{
		"GET / HTTP/1.1\r\n":           s.HTTP1,
		"POST /build HTTP/1.1\r\n":     s.HTTP1,
		"PRI * HTTP/1.1\r\n":           s.HTTP1,
		"PRI * HTTP/2.0\r\n\r\nSM\r\n": s.HTTP2,
	} {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		got, err := q.Accept()
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, len(text))
		if _, err := io.ReadFull(got, b); err != nil || string(b) != text {
			t.Errorf("%q: server read %q, %v", text, b, err)
		}
		_ = c.Close()
		_ = got.Close()
	}
	// A silent peer does not keep the fork from ending.
	silent, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	cancel()
	_ = l.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestSocketInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := Unix(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var inUse *InUseError
	if _, err := Unix(path, Options{}); !errors.As(err, &inUse) {
		t.Errorf("second listener: got %v, want InUseError", err)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	again, err := Unix(path, Options{})
	if err != nil {
		t.Fatalf("a socket nobody answers on was not replaced: %v", err)
	}
	_ = again.Close()
}

func TestFileInTheWayIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Unix(path, Options{}); err == nil {
		t.Error("listening over a plain file must fail")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "x" {
		t.Errorf("the file was touched: %q, %v", b, err)
	}
}
