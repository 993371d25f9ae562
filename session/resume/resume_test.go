package resume

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipwaybuild/slipway/session/peer"
	"golang.org/x/net/nettest"
)

// quick is for tests in real time.
func quick() timing {
	return timing{heartbeat: 20 * time.Millisecond, silence: 200 * time.Millisecond, linger: time.Second}
}

func TestIsAConnection(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		n := newNetwork(t, ServerOptions{}, usualTiming())
		end := n.start()
		client, server := n.dial()
		return client, server, func() {
			_ = client.Close()
			_ = server.Close()
			end()
		}, nil
	})
}

// TestNothingIsLostOrRepeated streams both ways at once while paths are cut.
func TestNothingIsLostOrRepeated(t *testing.T) {
	for name, tcp := range map[string]bool{"pipes": false, "tcp": true} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t, ServerOptions{}, quick())
			n.tcp = tcp
			defer n.start()()
			client, server := n.dial()
			stop := make(chan struct{})
			var chaos sync.WaitGroup
			chaos.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(rand.N(15 * time.Millisecond)):
						n.cut()
					}
				}
			})
			const size = 8 << 20
			var both sync.WaitGroup
			for i, ends := range [][2]net.Conn{{client, server}, {server, client}} {
				var sent, got [sha256.Size]byte
				both.Go(func() { sent = pour(t, ends[0], uint64(i), size) })
				both.Go(func() { got = drain(t, ends[1], size) })
				defer func() {
					if sent != got {
						t.Errorf("direction %d: what came is not what was sent", i)
					}
				}()
			}
			both.Wait()
			close(stop)
			chaos.Wait()
			n.mu.Lock()
			t.Logf("%d paths", n.dials)
			if n.dials < 5 {
				t.Errorf("only %d paths were used: nothing was tried", n.dials)
			}
			n.mu.Unlock()
			if err := client.Close(); err != nil {
				t.Error(err)
			}
			if _, err := server.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("after the client's goodbye: %v", err)
			}
			_ = server.Close()
		})
	}
}

func pour(t *testing.T, c net.Conn, seed uint64, size int) (sum [sha256.Size]byte) {
	random, hash := rand.NewChaCha8([32]byte{byte(seed)}), sha256.New()
	choose := rand.New(rand.NewPCG(seed, 1))
	for size > 0 {
		p := make([]byte, min(size, 1+choose.IntN(100_000)))
		_, _ = random.Read(p)
		_, _ = hash.Write(p)
		if n, err := c.Write(p); n != len(p) || err != nil {
			t.Errorf("write: %d of %d, %v", n, len(p), err)
			return
		}
		size -= len(p)
	}
	return [sha256.Size]byte(hash.Sum(nil))
}

func drain(t *testing.T, c net.Conn, size int) (sum [sha256.Size]byte) {
	hash := sha256.New()
	if n, err := io.CopyN(hash, c, int64(size)); err != nil {
		t.Errorf("read: %d of %d, %v", n, size, err)
	}
	return [sha256.Size]byte(hash.Sum(nil))
}

// in runs f with a network in a bubble of time.
func in(t *testing.T, o ServerOptions, f func(t *testing.T, n *network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, o, usualTiming())
		stop := n.start()
		f(t, n)
		stop()
	})
}

func TestOutageWithinGrace(t *testing.T) {
	in(t, ServerOptions{}, func(t *testing.T, n *network) {
		client, server := n.dial()
		write(t, client, "before")
		expect(t, server, "before")
		n.setDown(true)
		write(t, client, "while it is down")
		write(t, server, "from the other side")
		time.Sleep(UsualGrace - 10*time.Second)
		n.setDown(false)
		began := time.Now()
		expect(t, server, "while it is down")
		expect(t, client, "from the other side")
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("restored after %s", took)
		}
		_ = client.Close()
		_ = server.Close()
	})
}

func TestOutageBeyondGrace(t *testing.T) {
	in(t, ServerOptions{Grace: time.Minute}, func(t *testing.T, n *network) {
		client, server := n.dial()
		synctest.Wait() // until the client has been heard
		began := time.Now()
		n.setDown(true)
		if _, err := server.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("the daemon's end: %v, want why it was lost", err)
		}
		if took := time.Since(began); took < time.Minute || took > time.Minute+time.Second {
			t.Errorf("given up after %s, want the grace time", took)
		}
		n.setDown(false)
		if _, err := client.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("the client's end: %v, want why it was lost", err)
		}
		_ = client.Close()
		_ = server.Close()
		if len(n.server.conns) != 0 || len(n.server.per) != 0 {
			t.Errorf("the daemon still keeps %d connections of %d clients", len(n.server.conns), len(n.server.per))
		}
	})
}

func TestClientGivesUpOnADaemonThatIsAway(t *testing.T) {
	in(t, ServerOptions{Grace: time.Minute}, func(t *testing.T, n *network) {
		client, server := n.dial()
		began := time.Now()
		n.setDown(true)
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, errDown) {
			t.Errorf("got %v, want the reason of the last try", err)
		}
		if took := time.Since(began); took < 90*time.Second || took > 2*time.Minute {
			t.Errorf("gave up after %s", took)
		}
		_ = client.Close()
		_ = server.Close()
	})
}

// TestSilentPathIsReplaced is a path that neither breaks nor carries anything.
func TestSilentPathIsReplaced(t *testing.T) {
	in(t, ServerOptions{}, func(t *testing.T, n *network) {
		var mute bool
		var mu sync.Mutex
		open := func(ctx context.Context) (net.Conn, error) {
			c, err := n.open(ctx)
			return &muted{Conn: c, muted: func() bool { mu.Lock(); defer mu.Unlock(); return mute }, done: make(chan struct{})}, err
		}
		client, err := dialWith(t.Context(), nil, open, usualTiming())
		if err != nil {
			t.Fatal(err)
		}
		server := <-n.conns
		time.Sleep(10 * time.Minute) // quiet is not silent
		if n.dials != 1 {
			t.Errorf("a quiet path was replaced %d times", n.dials-1)
		}
		mu.Lock()
		mute = true
		mu.Unlock()
		write(t, client, "lost on the way")
		time.Sleep(time.Second)
		mu.Lock()
		mute = false
		mu.Unlock()
		began := time.Now()
		expect(t, server, "lost on the way")
		if took := time.Since(began); took > 40*time.Second {
			t.Errorf("noticed after %s", took)
		}
		_ = client.Close()
		_ = server.Close()
	})
}

// muted swallows what is written from the moment that it is muted.
type muted struct {
	net.Conn
	muted   func() bool
	swallow bool
	done    chan struct{}
}

func (m *muted) Write(p []byte) (int, error) {
	if m.swallow = m.swallow || m.muted(); m.swallow {
		return len(p), nil
	}
	return m.Conn.Write(p)
}

// TestAnswerThatIsLost leaves a connection that nobody knows how to resume.
func TestAnswerThatIsLost(t *testing.T) {
	in(t, ServerOptions{}, func(t *testing.T, n *network) {
		conn, err := n.open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := ask(t.Context(), conn, hello{}, usualTiming()); err != nil {
			t.Fatal(err)
		}
		server := <-n.conns
		began := time.Now()
		n.cut()
		if _, err := server.Read(make([]byte, 1)); err == nil || time.Since(began) > unheardGrace {
			t.Errorf("kept for %s: %v", time.Since(began), err)
		}
		_ = server.Close()
	})
}

func TestOnlyTheOwnerResumes(t *testing.T) {
	in(t, ServerOptions{}, func(t *testing.T, n *network) {
		client, server := n.dial()
		var token string
		for token = range n.server.conns {
		}
		attempt := func(token string) error {
			conn, err := n.open(t.Context())
			if err != nil {
				return err
			}
			_, _, err = ask(t.Context(), conn, hello{token: token}, usualTiming())
			return err
		}
		n.who.Store(peer.Identity("unix:8"))
		var gone *refusal
		if err := attempt(token); !errors.As(err, &gone) || gone.status != http.StatusGone {
			t.Errorf("another user's token: %v", err)
		}
		n.who.Store(peer.Identity("unix:7"))
		if err := attempt("guessed"); !errors.As(err, &gone) || gone.status != http.StatusGone {
			t.Errorf("a token that does not exist: %v", err)
		}
		write(t, client, "unharmed")
		expect(t, server, "unharmed")
		_ = client.Close()
		if err := attempt(token); !errors.As(err, &gone) {
			t.Errorf("the token of a connection that was closed: %v", err)
		}
		_ = server.Close()
	})
}

func TestOneClientCannotHaveThemAll(t *testing.T) {
	in(t, ServerOptions{PerClient: 2}, func(t *testing.T, n *network) {
		var all []net.Conn
		for range 2 {
			c, s := n.dial()
			all = append(all, c, s)
		}
		if _, err := dialWith(t.Context(), nil, n.open, usualTiming()); !errors.Is(err, ErrUnsupported) {
			t.Errorf("one too many: %v, want to be told to do without", err)
		}
		n.who.Store(peer.Identity("unix:8"))
		c, s := n.dial()
		_ = c.Close()
		_ = s.Close()
		for _, c := range all {
			_ = c.Close()
		}
		n.who.Store(peer.Identity("unix:7"))
		c, s = n.dial()
		_ = c.Close()
		_ = s.Close()
	})
}

func TestWriterWaitsForReader(t *testing.T) {
	in(t, ServerOptions{}, func(t *testing.T, n *network) {
		client, server := n.dial()
		wrote := make(chan int, 1)
		go func() {
			got, _ := client.Write(make([]byte, 3*window))
			wrote <- got
		}()
		synctest.Wait()
		time.Sleep(time.Hour)
		select {
		case got := <-wrote:
			t.Errorf("%d bytes were taken over while nobody read", got)
		default:
		}
		if held := server.(*Conn).in.len(); held > window {
			t.Errorf("the daemon holds %d bytes", held)
		}
		if _, err := io.CopyN(io.Discard, server, 3*window); err != nil {
			t.Error(err)
		}
		if got := <-wrote; got != 3*window {
			t.Errorf("wrote %d", got)
		}
		_ = client.Close()
		_ = server.Close()
	})
}

func TestGoodbye(t *testing.T) {
	in(t, ServerOptions{}, func(t *testing.T, n *network) {
		client, server := n.dial()
		write(t, client, "last words")
		began := time.Now()
		_ = client.Close()
		if took := time.Since(began); took > 0 {
			t.Errorf("the goodbye took %s", took)
		}
		expect(t, server, "last words")
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("read after the goodbye: %v", err)
		}
		if _, err := server.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write after the goodbye: %v", err)
		}
		_ = server.Close()

		client, server = n.dial()
		write(t, server, "last words")
		_ = server.Close()
		synctest.Wait()
		expect(t, client, "last words")
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("read after the daemon's goodbye: %v", err)
		}
		_ = client.Close()
	})
}

// TestGoodbyeWithoutANetwork does not keep a program from ending.
func TestGoodbyeWithoutANetwork(t *testing.T) {
	in(t, ServerOptions{}, func(t *testing.T, n *network) {
		client, server := n.dial()
		n.setDown(true)
		write(t, client, "never sent")
		began := time.Now()
		_ = client.Close()
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("closing took %s", took)
		}
		_ = server.Close()
	})
}

func TestDaemonThatEndsSaysSo(t *testing.T) {
	in(t, ServerOptions{}, func(t *testing.T, n *network) {
		client, server := n.dial()
		go func() { _ = n.server.Close() }()
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("got %v", err)
		}
		_ = client.Close()
		_ = server.Close()
		synctest.Wait()
		if _, err := dialWith(t.Context(), nil, n.open, usualTiming()); !errors.Is(err, ErrUnsupported) {
			t.Errorf("a daemon that is ending: %v", err)
		}
	})
}

func TestDeadlinesOutlivePaths(t *testing.T) {
	in(t, ServerOptions{}, func(t *testing.T, n *network) {
		client, server := n.dial()
		n.setDown(true)
		_ = client.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		_ = client.SetReadDeadline(time.Time{})
		n.setDown(false)
		write(t, server, "later")
		expect(t, client, "later")
		_ = client.Close()
		_ = server.Close()
	})
}

// TestOtherDaemonsAreRecognised are those that do not offer this.
func TestOtherDaemonsAreRecognised(t *testing.T) {
	for name, say := range map[string]string{
		"docker":    "HTTP/1.1 404 Not Found\r\nContent-Length: 29\r\n\r\n{\"message\":\"page not found\"}\n",
		"buildkitd": "\x00\x00\x0c\x04\x00\x00\x00\x00\x00",
		"old":       "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
		"tokenless": "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + Protocol + "\r\n\r\n",
		"silent":    "",
		"endless":   "HTTP/1.1 101 " + string(make([]byte, 2*maxHead)),
	} {
		synctest.Test(t, func(t *testing.T) {
			open := func(context.Context) (net.Conn, error) {
				near, far := net.Pipe()
				go func() { _, _ = io.Copy(io.Discard, far) }()
				go func() {
					_, _ = io.WriteString(far, say)
					_ = far.Close()
				}()
				return near, nil
			}
			if _, err := dialWith(t.Context(), nil, open, usualTiming()); !errors.Is(err, ErrUnsupported) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}
