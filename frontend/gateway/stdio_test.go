package gateway

import (
	"io"
	"strings"
	"testing"
)

// FuzzProgramOutput feeds what a program may print: only what begins as HTTP/2 does reaches the server.
func FuzzProgramOutput(f *testing.F) {
	f.Add([]byte(preface+"more"), 5)
	f.Add([]byte("PRI"), 1)
	f.Add([]byte("usage: frontend\n"), 100)
	f.Fuzz(func(t *testing.T, b []byte, chunk int) {
		c := newPipeConn()
		go func() {
			_, _ = c.stdout.Write(b) // fails when the connection is closed
			c.hangUp()
		}()
		defer func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}()
		buf := make([]byte, min(max(chunk, 1), 1<<10))
		var got []byte
		for {
			n, err := c.Read(buf)
			got = append(got, buf[:n]...)
			if err != nil {
				break
			}
		}
		http2 := strings.HasPrefix(preface, string(b[:min(len(b), len(preface))]))
		if http2 && (string(got) != string(b) || c.garbage() != nil) {
			t.Errorf("%q became %q (%v)", b, got, c.garbage())
		}
		if !http2 && (c.garbage() == nil || !strings.HasPrefix(preface, string(got))) {
			t.Errorf("%q became %q (%v)", b, got, c.garbage())
		}
	})
}

func TestConnectionsOverPipesEnd(t *testing.T) {
	t.Parallel()
	c := newPipeConn()
	l := c.listener()
	if conn, err := l.Accept(); err != nil || conn != c {
		t.Fatal(conn, err)
	}
	written := make(chan error, 1)
	go func() {
		_, err := c.Write([]byte("nobody reads this"))
		written <- err
	}()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-written; err == nil {
		t.Error("a write to nobody succeeded")
	}
	if _, err := l.Accept(); err == nil {
		t.Error("a closed listener accepts")
	}
	if _, err := c.stdin.Read(make([]byte, 1)); err != io.EOF { //nolint:errorlint // as a reader sees it
		t.Errorf("the program reads %v", err)
	}
}

func TestCapabilityLists(t *testing.T) {
	t.Parallel()
	names := capNames("a,b+forward,,+x,c+y+z")
	if len(names) != 3 || !names["a"] || !names["b"] || !names["c"] {
		t.Errorf("got %v", names)
	}
}
