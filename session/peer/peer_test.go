package peer_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/slipwaybuild/slipway/session/peer"
)

// pair returns both ends of a unix connection.
func pair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("unix", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	return client, server
}

type wrapped struct{ net.Conn }

func (w wrapped) NetConn() net.Conn { return w.Conn }

func TestIdentityOfAUser(t *testing.T) {
	_, server := pair(t)
	want := peer.Identity("unix:" + strconv.Itoa(os.Getuid()))
	for name, conn := range map[string]net.Conn{"plain": server, "wrapped": wrapped{wrapped{server}}} {
		if got := peer.Of(conn); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if got := peer.Of(a); got != peer.Unknown {
		t.Errorf("a pipe's peer is %q", got)
	}
}

func TestIdentityTravelsInContexts(t *testing.T) {
	if got := peer.FromContext(t.Context()); got != peer.Unknown {
		t.Errorf("of nobody: %q", got)
	}
	if got := peer.FromContext(peer.NewContext(t.Context(), "tls:CN=ann")); got != "tls:CN=ann" {
		t.Errorf("got %q", got)
	}
}

func TestDirectIsOnlyWhoSaysSo(t *testing.T) {
	_, server := pair(t)
	p := peer.Direct(wrapped{server}, peer.Self())
	if p == nil {
		t.Fatal("this process is not found at the other end of its own connection")
	}
	if p.Ended() {
		t.Error("this process has ended")
	}
	waited := make(chan bool)
	go func() { waited <- p.Wait() }()
	time.Sleep(10 * time.Millisecond)
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if <-waited {
		t.Error("closing was taken for the end of the process")
	}
	for _, claimed := range []string{"", "1@", "1", "0" + peer.Self(), peer.Self() + "0"} {
		if peer.Direct(server, claimed) != nil {
			t.Errorf("%q is taken for this process", claimed)
		}
	}
}

// TestMain is also the program of TestEndOfAProcess, which connects and stays.
func TestMain(m *testing.M) {
	if path := os.Getenv("PEER_TEST_CONNECT"); path != "" {
		c, err := net.Dial("unix", path)
		if err != nil {
			os.Exit(1)
		}
		_, _ = c.Write([]byte(peer.Self() + "\n"))
		_, _ = c.Read(make([]byte, 1))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestEndOfAProcess(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PEER_TEST_CONNECT="+l.Addr().String())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	buf := make([]byte, 256)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	p := peer.Direct(conn, string(buf[:n-1]))
	if p == nil {
		t.Fatal("the process is not found")
	}
	defer p.Close()
	if p.Ended() {
		t.Error("it has ended before it was killed")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if !p.Wait() || !p.Ended() {
		t.Error("its end is not noticed")
	}
	_ = cmd.Wait() // was killed
}
