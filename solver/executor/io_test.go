package executor_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/slipwaybuild/slipway/solver/executor"
	"github.com/slipwaybuild/slipway/solver/executor/executortest"
)

// spec is a script on the base.
func (h *host) spec(script string) executor.Spec {
	s := h.Root()
	s.Args = []string{"/bin/sh", "-c", script}
	return s
}

func TestStdin(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	var stdout bytes.Buffer
	in := strings.Repeat("0123456789abcdef", 1<<14)
	out, err := h.runc.Run(t.Context(), h.spec("cat"), nil, executor.IO{Stdin: io.NopCloser(strings.NewReader(in)), Stdout: &stdout}, nil)
	if err != nil {
		t.Fatal(err)
	}
	executortest.Release(t, out)
	if stdout.String() != in {
		t.Errorf("%d of %d bytes came back", stdout.Len(), len(in))
	}
}

func TestStdinThatNeverEnds(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r, w := io.Pipe()
	defer func() { _ = w.Close() }()
	out, err := h.runc.Run(t.Context(), h.spec("true"), nil, executor.IO{Stdin: r}, nil)
	if err != nil {
		t.Fatal(err)
	}
	executortest.Release(t, out)
}

func TestStreamsAreApart(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.sh(t, "echo out; echo err >&2", nil).says(t, "out\n")
	if r := h.sh(t, "echo out; echo err >&2", nil); r.stderr != "err\n" {
		t.Errorf("stderr is %q", r.stderr)
	}
}

// feed is a writer that tells when it was told something.
type feed struct {
	mu   sync.Mutex
	all  strings.Builder
	want string
	seen func()
}

func (f *feed) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all.Write(b)
	if f.seen != nil && strings.Contains(f.all.String(), f.want) {
		f.seen()
		f.seen = nil
	}
	return len(b), nil
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	in, w := io.Pipe()
	sizes := make(chan executor.Size, 1)
	stdout := &feed{want: "ready", seen: func() { sizes <- executor.Size{Rows: 33, Cols: 101} }}
	script := `trap 'stty size; exit 0' WINCH; tty; echo $TERM; echo ready; while :; do read x; done`
	out, err := h.runc.Run(t.Context(), h.spec(script), nil, executor.IO{Tty: true, Stdin: in, Stdout: stdout, Resize: sizes}, nil)
	_ = w.Close()
	if err != nil {
		t.Fatalf("%v: %q", err, stdout.all.String())
	}
	executortest.Release(t, out)
	want := "/dev/pts/0\r\nxterm\r\nready\r\n33 101\r\n"
	if got := stdout.all.String(); got != want {
		t.Errorf("terminal showed %q, want %q", got, want)
	}
}

func TestSignals(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, c := range []struct {
		name, script string
		signal, code int
	}{
		{"one that is caught", "trap 'exit 42' TERM; echo ready; while :; do sleep 0.01; done", 15, 42},
		{"one that cannot be", "echo ready; while :; do sleep 0.01; done", 9, 137},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			signals := make(chan int, 1)
			stdout := &feed{want: "ready", seen: func() { signals <- c.signal }}
			_, err := h.runc.Run(t.Context(), h.spec(c.script), nil, executor.IO{Stdout: stdout, Signal: signals}, nil)
			var exit *executor.ExitError
			if !errors.As(err, &exit) || exit.Code != c.code {
				t.Errorf("error %v, want exit code %d", err, c.code)
			}
		})
	}
}

func TestLongOutput(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	if r := h.sh(t, "seq 1 200000", nil).ok(t); !strings.HasSuffix(r.stdout, "\n200000\n") || strings.Count(r.stdout, "\n") != 200000 {
		t.Errorf("%d lines came out, want 200000", strings.Count(r.stdout, "\n"))
	}
}
