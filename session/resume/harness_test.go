package resume

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slipwaybuild/slipway/session/peer"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// network connects clients to one server, over pipes or sockets that a test may cut.
type network struct {
	t      *testing.T
	server *Server
	conns  chan net.Conn // what the server accepted
	who    atomic.Value  // peer.Identity of paths
	tcp    bool

	accept chan net.Conn
	done   chan struct{}

	mu    sync.Mutex
	paths []net.Conn
	down  bool
	dials int
}

// newNetwork returns a network whose server is closed when the test, or stop, is over.
func newNetwork(t *testing.T, o ServerOptions, timings timing) *network {
	n := &network{t: t, conns: make(chan net.Conn, 100), accept: make(chan net.Conn), done: make(chan struct{})}
	n.who.Store(peer.Identity("unix:7"))
	o.Accept = func(c net.Conn) { n.conns <- c }
	n.server = NewServer(o)
	n.server.timing = timings
	return n
}

// start serves until stop is called.
func (n *network) start() (stop func()) {
	srv := &http.Server{
		ReadHeaderTimeout: time.Minute,
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return peer.NewContext(ctx, n.who.Load().(peer.Identity))
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			err := n.server.HandleHTTP(w, r)
			if bad := (*RequestError)(nil); errors.As(err, &bad) {
				http.Error(w, bad.Message, bad.Status)
			}
		}),
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(n)
	}()
	return func() {
		n.cut()
		_ = n.server.Close()
		_ = srv.Close()
		<-served
	}
}

func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.accept:
		return c, nil
	case <-n.done:
		return nil, net.ErrClosed
	}
}

func (n *network) Close() error {
	close(n.done)
	return nil
}

func (n *network) Addr() net.Addr { return &net.UnixAddr{Name: "test", Net: "unix"} }

var errDown = errors.New("the network is down")

func (n *network) open(ctx context.Context) (net.Conn, error) {
	n.mu.Lock()
	down := n.down
	n.dials++
	n.mu.Unlock()
	if down {
		return nil, errDown
	}
	near, far := net.Pipe()
	if n.tcp {
		near, far = tcpPair(n.t)
	}
	n.mu.Lock()
	n.paths = append(n.paths, near, far)
	n.mu.Unlock()
	select {
	case n.accept <- far:
		return near, nil
	case <-n.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func tcpPair(t *testing.T) (near, far net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return near, far
}

// cut breaks all paths there are.
func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.paths {
		_ = p.Close()
	}
	n.paths = nil
}

// setDown cuts, and keeps paths from being made.
func (n *network) setDown(down bool) {
	n.mu.Lock()
	n.down = down
	n.mu.Unlock()
	if down {
		n.cut()
	}
}

// dial returns both ends of a new Conn.
func (n *network) dial() (client *Conn, server net.Conn) {
	n.t.Helper()
	c, err := dialWith(n.t.Context(), nil, n.open, n.server.timing)
	if err != nil {
		n.t.Fatal(err)
	}
	return c, <-n.conns
}

func write(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Errorf("write %q: %v", s, err)
	}
}

func expect(t *testing.T, c net.Conn, want string) {
	t.Helper()
	buf := make([]byte, len(want))
	if n, err := io.ReadFull(c, buf); err != nil || !bytes.Equal(buf, []byte(want)) {
		t.Errorf("read %q, %v; want %q", buf[:n], err, want)
	}
}
