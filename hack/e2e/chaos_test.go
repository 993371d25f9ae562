package e2e

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// badNetwork is a proxy before a daemon's socket, as a tunnel over a bad line would be.
type badNetwork struct {
	network, socket, daemon string // socket and daemon are addresses
	l                       net.Listener
	up                      atomic.Bool
	slow                    atomic.Bool // delays what passes
	cuts                    atomic.Int64

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	wg    sync.WaitGroup
}

// behindBadNetwork puts a proxy before the daemon. Nothing is wrong with it until a test says so.
func behindBadNetwork(t *testing.T, d *daemon) *badNetwork {
	return startBadNetwork(t, &badNetwork{network: "unix", socket: filepath.Join(d.dir, "proxy.sock"), daemon: d.socket})
}

// behindBadTCP is behindBadNetwork for a daemon at a tcp address.
func behindBadTCP(t *testing.T, addr string) *badNetwork {
	return startBadNetwork(t, &badNetwork{network: "tcp", socket: "127.0.0.1:0", daemon: addr})
}

func startBadNetwork(t *testing.T, n *badNetwork) *badNetwork {
	t.Helper()
	n.conns = map[net.Conn]struct{}{}
	var err error
	if n.l, err = net.Listen(n.network, n.socket); err != nil {
		t.Fatal(err)
	}
	n.up.Store(true)
	n.wg.Go(n.serve)
	t.Cleanup(func() {
		_ = n.l.Close()
		n.cut()
		n.wg.Wait()
	})
	return n
}

func (n *badNetwork) serve() {
	for {
		near, err := n.l.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial(n.network, n.daemon)
		if err != nil || !n.up.Load() {
			_ = near.Close()
			if err == nil {
				_ = far.Close()
			}
			continue
		}
		n.mu.Lock()
		n.conns[near], n.conns[far] = struct{}{}, struct{}{}
		n.mu.Unlock()
		n.wg.Go(func() { n.pass(near, far) })
		n.wg.Go(func() { n.pass(far, near) })
	}
}

// pass hands on until either end is closed; then what it has read by then is lost.
func (n *badNetwork) pass(from, to net.Conn) {
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, c := range []net.Conn{from, to} {
			_ = c.Close()
			delete(n.conns, c)
		}
	}()
	buf := make([]byte, 16<<10)
	for {
		got, err := from.Read(buf)
		if n.slow.Load() && rand.IntN(20) == 0 {
			time.Sleep(rand.N(30 * time.Millisecond))
		}
		if got > 0 {
			// Half of a write may be all that gets through.
			if !n.up.Load() {
				got = rand.IntN(got + 1)
			}
			if _, err := to.Write(buf[:got]); err != nil {
				return
			}
		}
		if err != nil || !n.up.Load() {
			return
		}
	}
}

// cut breaks all connections.
func (n *badNetwork) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		_ = c.Close()
	}
	n.cuts.Add(1)
}

// outage breaks all connections and lets nobody through for a while.
func (n *badNetwork) outage(d time.Duration) {
	n.up.Store(false)
	n.cut()
	time.Sleep(d)
	n.up.Store(true)
}

// chaos cuts every 0.1 s to between for up to away, until ctx ends.
func (n *badNetwork) chaos(ctx context.Context, between, away time.Duration) {
	n.slow.Store(true)
	for {
		select {
		case <-ctx.Done():
			n.slow.Store(false)
			return
		case <-time.After(100*time.Millisecond + rand.N(between-100*time.Millisecond)):
		}
		n.outage(rand.N(away))
	}
}

// slipway runs the command through the proxy.
func (n *badNetwork) slipway(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(binaries, "slipway"), append([]string{"--addr", "unix://" + n.socket}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// TestBuildsOverABadNetwork is many builds (40, or SLIPWAY_CHAOS_BUILDS with longer outages) over connections that break all the time: none fails, no step runs
// twice, every file arrives as it is.
func TestBuildsOverABadNetwork(t *testing.T) {
	builds, between, away := 40, 2*time.Second, time.Second
	if v := os.Getenv("SLIPWAY_CHAOS_BUILDS"); v != "" {
		var err error
		if builds, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
		between, away = 5*time.Second, 3*time.Second
	}
	d := startDaemon(t)
	bb := busyboxContext(t)
	d.build(bb, "-o", "type=cacheonly", write(t, map[string]string{"Dockerfile": base}))
	n := behindBadNetwork(t, d)
	ctx, calm := context.WithCancel(t.Context())
	var storm sync.WaitGroup
	storm.Go(func() { n.chaos(ctx, between, away) })
	began := time.Now()
	work := t.TempDir()
	places := make(chan struct{}, 20)
	var wg sync.WaitGroup
	var failed atomic.Int64
	for i := range builds {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			if err := n.buildOne(t.Context(), bb, filepath.Join(work, strconv.Itoa(i)), i); err != nil {
				failed.Add(1)
				t.Errorf("build %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	calm()
	storm.Wait()
	t.Logf("%d builds in %s with %d cuts, %d failed", builds, time.Since(began).Round(time.Second), n.cuts.Load(), failed.Load())
	if n.cuts.Load() < 3 {
		t.Errorf("only %d cuts: nothing was tried", n.cuts.Load())
	}
	out := t.TempDir()
	d.build(bb, "-o", out, write(t, map[string]string{
		"Dockerfile": base + "RUN --mount=type=cache,target=/count mkdir /counts && cp /count/* /counts/\n",
	}))
	for i := range builds {
		b, err := os.ReadFile(filepath.Join(out, "counts", strconv.Itoa(i)))
		if err != nil || string(b) != "ran\n" {
			t.Errorf("the step of build %d: %q, %v; want it to have run once", i, b, err)
		}
	}
	if s := d.logText(); strings.Contains(s, "breaks the protocol") {
		t.Errorf("the daemon says that a client breaks the protocol:\n%s", s)
	}
}

// buildOne sends a file, has a step write another, and gets both back.
func (n *badNetwork) buildOne(ctx context.Context, bb, dir string, i int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	src, out := filepath.Join(dir, "src"), filepath.Join(dir, "out")
	if err := os.MkdirAll(src, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	sent := make([]byte, 1<<20)
	_, _ = crand.Read(sent)
	dockerfile := base + fmt.Sprintf(`RUN --mount=type=cache,target=/count echo ran >> /count/%d; for i in 1 2 3 4 5 6 7 8 9; do echo line $i; sleep 0.2; done; echo %d > /made
FROM scratch
COPY --from=base /made /made
COPY sent /sent
`, i, i)
	err := errors.Join(os.WriteFile(filepath.Join(src, "sent"), sent, 0o644), os.WriteFile(filepath.Join(src, "Dockerfile"), []byte(dockerfile), 0o644))
	if err != nil {
		return err
	}
	said, err := n.slipway(ctx, "build", "--progress", "plain", bb, "-o", out, src)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, said)
	}
	got, err := os.ReadFile(filepath.Join(out, "sent"))
	if err != nil {
		return fmt.Errorf("%w\n%s", err, said)
	}
	if !bytes.Equal(got, sent) {
		return fmt.Errorf("the file came back as %d bytes\n%s", len(got), said)
	}
	made, err := os.ReadFile(filepath.Join(out, "made"))
	if err != nil {
		return fmt.Errorf("%w\n%s", err, said)
	}
	if strings.TrimSpace(string(made)) != strconv.Itoa(i) {
		return fmt.Errorf("the step made %q\n%s", made, said)
	}
	for line := 1; line < 10; line++ {
		if strings.Count(said, fmt.Sprintf(" line %d\n", line)) != 1 {
			return fmt.Errorf("line %d was not shown once:\n%s", line, said)
		}
	}
	return nil
}

// TestAnOutageIsAPause has the network go while a step runs that needs nothing of the client: it goes on meanwhile, and the build after
// it.
func TestAnOutageIsAPause(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	n := behindBadNetwork(t, d)
	out := t.TempDir()
	dir := write(t, map[string]string{"late": "asked for after the outage", "Dockerfile": base + `RUN sleep 4.7; echo after > /after
COPY late /late
`})
	built := make(chan error, 1)
	go func() {
		said, err := n.slipway(t.Context(), "build", "--progress", "plain", bb, "-o", out, dir)
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, said)
		}
		built <- err
	}()
	waitFor(t, "the step to run", func() bool { return len(processesNaming("sleep 4.7; echo after")) > 0 })
	go n.outage(10 * time.Second)
	waitFor(t, "the step to end while the client is away", func() bool {
		return len(processesNaming("sleep 4.7; echo after")) == 0
	})
	if n.up.Load() {
		t.Error("the outage was over before the step")
	}
	if err := <-built; err != nil {
		t.Fatal(err)
	}
	if read(t, out, "after") != "after\n" || read(t, out, "late") != "asked for after the outage" {
		t.Error("what came out is not what was built")
	}
}

// TestClientThatDoesNotComeBack is given up after the grace time, and its build is cancelled.
func TestClientThatDoesNotComeBack(t *testing.T) {
	config := filepath.Join(t.TempDir(), "c.toml")
	if err := os.WriteFile(config, []byte("[slipway]\nresumeGrace = 2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, "--config", config)
	bb := busyboxContext(t)
	n := behindBadNetwork(t, d)
	dir := write(t, map[string]string{"Dockerfile": base + "RUN sleep 31415\n"})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = n.slipway(ctx, "build", bb, "-o", "type=cacheonly", dir)
	}()
	running := func() bool { return len(processesNaming("sleep\x0031415")) > 0 }
	waitFor(t, "the step to run", running)
	n.up.Store(false)
	n.cut()
	time.Sleep(time.Second)
	if !running() {
		t.Error("the build was given up before the grace time was over")
	}
	waitFor(t, "the build to be given up", func() bool { return !running() })
	began := time.Now()
	cancel()
	<-ended
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("without a network, an interrupted client took %s to end", took)
	}
}

// TestInterruptedThroughATunnel is a client that says goodbye, so that nobody waits for it.
func TestInterruptedThroughATunnel(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	n := behindBadNetwork(t, d)
	dir := write(t, map[string]string{"Dockerfile": base + "RUN sleep 27183\n"})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := n.slipway(ctx, "build", bb, "-o", "type=cacheonly", dir)
		ended <- err
	}()
	running := func() bool { return len(processesNaming("sleep\x0027183")) > 0 }
	waitFor(t, "the step to run", running)
	began := time.Now()
	cancel()
	<-ended
	waitFor(t, "the step to end", func() bool { return !running() })
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("an interrupted build went on for %s", took)
	}
}
