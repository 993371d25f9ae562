package samehost

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/peer"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// caller is a session whose client answers as a test wants.
type caller struct {
	conn *grpc.ClientConn
	done chan struct{}
}

func (p *caller) ID() string             { return "test" }
func (p *caller) Name() string           { return "" }
func (p *caller) SharedKey() string      { return "" }
func (p *caller) Conn() *grpc.ClientConn { return p.conn }
func (p *caller) Done() <-chan struct{}  { return p.done }
func (p *caller) Supports(string) bool   { return true }

var _ session.Caller = (*caller)(nil)

type answering func(context.Context, ask) error

func (f answering) pass(ctx context.Context, a ask) error { return f(ctx, a) }

// hostAndPeer serves a host on a socket and a client that answers with f.
func hostAndPeer(t *testing.T, f answering) (*Host, *caller, string) {
	t.Helper()
	h, err := NewHost(nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Second}
	go func() { _ = srv.Serve(l) }()
	cl, err := net.Listen("unix", path+"c")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	g.RegisterService(&desc, f)
	go func() { _ = g.Serve(cl) }()
	cc, err := grpc.NewClient("unix:"+path+"c", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close(); g.Stop(); _ = srv.Close() })
	return h, &caller{conn: cc, done: make(chan struct{})}, path
}

// bring does by hand what a client does. It returns the daemon's answer, 0 for none.
func bring(t *testing.T, path string, msg []byte, fds ...int) byte {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(conn, "POST "+Path+" HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: "+Protocol+"\r\n\r\n"); err != nil {
		t.Error(err)
		return 0
	}
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("%v, %v", resp, err)
		return 0
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := conn.(*net.UnixConn).WriteMsgUnix(msg, oob, nil); err != nil {
		return 0
	}
	_ = conn.(*net.UnixConn).CloseWrite()
	var answer [1]byte
	if _, err := io.ReadFull(br, answer[:]); err != nil {
		return 0
	}
	return answer[0]
}

func message(n []byte, k kind) []byte { return append(append([]byte{}, n...), byte(k), 0) }

func openFDs(t *testing.T) int {
	t.Helper()
	l, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(l)
}

func TestHostilePassing(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	place, err := unix.Open(dir.Name(), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(place)
	many := make([]int, 250)
	for i := range many {
		many[i] = int(dir.Fd())
	}
	var path string
	for _, c := range []struct {
		name string
		do   func(t *testing.T, n []byte) byte
		want byte
	}{
		{"good", func(t *testing.T, n []byte) byte { return bring(t, path, message(n, kindDir), int(dir.Fd())) }, answerTaken},
		{"another nonce", func(t *testing.T, n []byte) byte {
			return bring(t, path, message(make([]byte, nonceSize), kindDir), int(dir.Fd()))
		}, answerRefused},
		{"no descriptor", func(t *testing.T, n []byte) byte { return bring(t, path, message(n, kindDir)) }, 0},
		{"a file", func(t *testing.T, n []byte) byte { return bring(t, path, message(n, kindDir), int(file.Fd())) }, 0},
		{"only a place", func(t *testing.T, n []byte) byte { return bring(t, path, message(n, kindDir), place) }, 0},
		{"two", func(t *testing.T, n []byte) byte {
			return bring(t, path, message(n, kindDir), int(dir.Fd()), int(dir.Fd()))
		}, 0},
		{"very many", func(t *testing.T, n []byte) byte { return bring(t, path, message(n, kindDir), many...) }, 0},
		{"unknown kind", func(t *testing.T, n []byte) byte { return bring(t, path, message(n, 'x'), int(dir.Fd())) }, 0},
		{"half a message", func(t *testing.T, n []byte) byte { return bring(t, path, n[:4], int(dir.Fd())) }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got byte
			h, p, sock := hostAndPeer(t, func(_ context.Context, a ask) error {
				got = c.do(t, a.Nonce)
				return nil
			})
			path = sock
			d, err := h.OpenDir(t.Context(), p, "context")
			if got != c.want {
				t.Errorf("the daemon answers %q, not %q", got, c.want)
			}
			if c.want == answerTaken {
				if err != nil {
					t.Fatal(err)
				}
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			} else if !errors.Is(err, ErrUnavailable) {
				t.Errorf("opened: %v", err)
			}
		})
	}
}

func TestNonceIsGoodOnce(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	var path string
	h, p, path := hostAndPeer(t, func(_ context.Context, a ask) error {
		if got := bring(t, path, message(a.Nonce, kindDir), int(dir.Fd())); got != answerTaken {
			t.Errorf("first: %q", got)
		}
		if got := bring(t, path, message(a.Nonce, kindDir), int(dir.Fd())); got != answerRefused {
			t.Errorf("second: %q", got)
		}
		return nil
	})
	d, err := h.OpenDir(t.Context(), p, "context")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// Thousands of descriptors and connections leave nothing behind.
func TestFloodLeavesNothing(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	h, _, path := hostAndPeer(t, func(context.Context, ask) error { return nil })
	before := openFDs(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 25 {
				fds := make([]int, 200)
				for i := range fds {
					fds[i] = int(dir.Fd())
				}
				bring(t, path, message(make([]byte, nonceSize), kindDir), fds...)
			}
		})
	}
	wg.Wait()
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if after := openFDs(t); after <= before {
			break
		} else if time.Since(start) > 5*time.Second {
			t.Fatalf("%d descriptors were open, now %d", before, after)
		}
	}
	if len(h.awaited) != 0 {
		t.Errorf("%d nonces wait", len(h.awaited))
	}
}

// A client that promises and does not pass holds nothing up for longer than its time.
func TestClientThatPassesNothing(t *testing.T) {
	h, p, _ := hostAndPeer(t, func(context.Context, ask) error { return nil })
	if _, err := h.OpenDir(t.Context(), p, "context"); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	h, p, _ = hostAndPeer(t, func(ctx context.Context, _ ask) error { <-ctx.Done(); return ctx.Err() })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := h.OpenDir(ctx, p, "context"); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	if len(h.awaited) != 0 {
		t.Errorf("%d nonces wait", len(h.awaited))
	}
}

func TestOverTCPIsUnavailable(t *testing.T) {
	h, err := NewHost(nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Second}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "POST "+Path+" HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: "+Protocol+"\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusBadRequest {
		t.Errorf("%v, %v", resp, err)
	}
	c := &client{Offer{Sources: map[string]Source{"context": {Path: t.TempDir()}}, Dial: func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
	}}}
	name := "context"
	if err := c.pass(t.Context(), ask{Nonce: make([]byte, nonceSize), Dir: &name}); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
}

func FuzzAsk(f *testing.F) {
	f.Add([]byte(`{"nonce":"AAAA","dir":"context"}`))
	f.Add([]byte(`{"nonce":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","output":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &client{Offer{Dial: func(context.Context) (net.Conn, error) { return nil, errors.New("no daemon") }}}
		var handle answering = c.pass
		dec := func(m any) error { m.(*wrapperspb.BytesValue).Value = b; return nil }
		out, err := desc.Methods[0].Handler(handle, t.Context(), dec, nil)
		var a ask
		if json.Unmarshal(b, &a) != nil && err == nil {
			t.Error("nonsense was taken")
		}
		if err == nil {
			if _, ok := out.(*emptypb.Empty); !ok {
				t.Errorf("%T", out)
			}
			t.Error("nothing is offered, and it was passed")
		}
	})
}

// What a client may not read, the daemon does not read for it, root or not.
func TestDaemonReadsAsItsClient(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to be two users")
	}
	top := t.TempDir()
	for p := top; p != "/tmp" && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(top, "dir")
	files := map[string]struct {
		mode     os.FileMode
		uid, gid int
		readable bool
	}{
		"world": {0o644, 0, 0, true}, "root-only": {0o600, 0, 0, false}, "mine": {0o600, 1234, 1234, true}, "mine-not": {0o044, 1234, 1234, false},
		"group": {0o640, 0, 1234, true}, "other-group": {0o640, 0, 4321, true}, "roots-group": {0o640, 0, 0, false}, "not-theirs": {0o640, 0, 77, false},
	}
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Mkdir(filepath.Join(dir, "closed"), 0o700), os.WriteFile(filepath.Join(dir, "closed/f"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	for name, f := range files {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(p, []byte(name), 0o600), os.Chown(p, f.uid, f.gid), os.Chmod(p, f.mode)); err != nil {
			t.Fatal(err)
		}
	}
	own, err := self()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDir(own, &arrival{file: fd, from: identity{uid: 1234, gid: 1234, groups: []uint32{4321}}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	can := func(name string) bool {
		err := d.Do(t.Context(), func(r Reader) error {
			fd, _, err := r.Open(name)
			if err != nil {
				return err
			}
			return unix.Close(fd)
		})
		if err != nil && !errors.Is(err, os.ErrPermission) {
			t.Errorf("%s: %v", name, err)
		}
		return err == nil
	}
	for range 3 { // on several threads
		for name, f := range files {
			if can(name) != f.readable {
				t.Errorf("%s: readable is %v", name, !f.readable)
			}
		}
		if can("closed/f") {
			t.Error("closed/f: read")
		}
	}
	if err := d.Select(t.Context(), Selection{}, func(Entry) error { return nil }); !errors.Is(err, os.ErrPermission) {
		t.Errorf("walk into a closed directory: %v", err)
	}
	// Nobody else became somebody else.
	if err := syscall.Access(filepath.Join(dir, "root-only"), unix.R_OK); err != nil {
		t.Error(err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "Uid:") && strings.Contains(line, "1234") {
			t.Errorf("the process is shown as %s", line)
		}
	}
}

// owned is a session of somebody.
type owned struct {
	*caller
	owner peer.Identity
}

func (o owned) Owner() peer.Identity { return o.owner }

// Who passes a descriptor must be who opened the session.
func TestSessionOfSomebodyElse(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	var path string
	h, p, path := hostAndPeer(t, func(_ context.Context, a ask) error {
		bring(t, path, message(a.Nonce, kindDir), int(dir.Fd()))
		return nil
	})
	us := peer.Identity("unix:" + strconv.Itoa(os.Geteuid()))
	for owner, good := range map[peer.Identity]bool{us: true, "unix:4242": false, "tls:CN=ann": false, peer.Unknown: true} {
		d, err := h.OpenDir(t.Context(), owned{p, owner}, "context")
		if good != (err == nil) || !good && !errors.Is(err, ErrUnavailable) {
			t.Errorf("%q: %v", owner, err)
		}
		if err == nil {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
