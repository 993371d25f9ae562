package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is one run of a container: a call of the runtime in the foreground, which makes the container, hands its input and
// output through, waits for it and ends with its exit code.
type process struct {
	rt     *runtime
	id     string
	bundle string
	args   []string
	// keep leaves the container's cgroup to be looked at; the container must then be deleted.
	keep bool
	io   IO
	log  *slog.Logger
}

// killGrace is how long a runtime may take to make a container that is to be killed, or to end after it was, before it is
// killed too. It needs some tens of milliseconds.
const killGrace = 10 * time.Second

func (p *process) pidFile() string { return filepath.Join(p.bundle, "pid") }
func (p *process) logFile() string { return filepath.Join(p.bundle, "log.json") }

// run runs the container to its end and returns its exit code. Every process of it is gone then. Cancelling ctx kills them all at
// once.
func (p *process) run(ctx context.Context) (int, error) {
	args := []string{"--log", p.logFile(), "--log-format", "json", "run", "--bundle", p.bundle, "--pid-file", p.pidFile()}
	if p.keep {
		args = append(args, "--keep")
	}
	// Not CommandContext: it would kill the runtime and not what the runtime runs.
	cmd := p.rt.command(context.WithoutCancel(ctx), append(args, p.id)...)
	// A terminal's ^C is for the daemon to handle. If the daemon dies, nobody reads the step's output any more.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	streams, err := attach(cmd, p.io, p.log)
	if err != nil {
		return 0, fmt.Errorf("attach to %s: %w", p.rt.path, err)
	}
	defer streams.close()
	watch, err := watchFile(p.pidFile())
	if err != nil {
		return 0, err
	}
	started, exited := startLocked(cmd)
	if err := <-started; err != nil {
		watch.close()
		return 0, fmt.Errorf("start %s: %w", p.rt.path, err)
	}
	streams.started()
	var wg sync.WaitGroup
	done, running, killed := make(chan struct{}), make(chan struct{}), make(chan struct{})
	wg.Go(func() { p.attend(watch, running, cmd.Process, streams, done) })
	stop := context.AfterFunc(ctx, func() {
		defer close(killed)
		p.kill(cmd.Process, running, exited.done)
	})
	<-exited.done
	if !stop() {
		<-killed // what it asks of the runtime must not outlive us
	}
	watch.close()
	close(done)
	wg.Wait()
	return p.outcome(ctx, exited.err)
}

// exit is how a call of the runtime ended; err is valid once done is closed.
type exit struct {
	done chan struct{}
	err  error
}

// startLocked starts cmd on a thread that lives as long as it does: the kernel sends a parent-death signal when the thread dies
// that started the process.
func startLocked(cmd *exec.Cmd) (started chan error, ended *exit) {
	started, ended = make(chan error, 1), &exit{done: make(chan struct{})}
	go func() {
		goruntime.LockOSThread()
		defer goruntime.UnlockOSThread()
		defer close(ended.done)
		err := cmd.Start()
		started <- err
		if err == nil {
			ended.err = cmd.Wait()
		}
	}()
	return started, ended
}

// attend closes running once the process runs, then hands signals and sizes on until done.
func (p *process) attend(watch *fileWatch, running chan<- struct{}, rt *os.Process, s *streams, done <-chan struct{}) {
	if !watch.wait() {
		return // it ended without ever starting
	}
	close(running)
	if p.io.Started != nil {
		p.io.Started()
	}
	signals, sizes := p.io.Signal, p.io.Resize
	for {
		select {
		case <-done:
			return
		case n, ok := <-signals:
			if !ok {
				signals = nil
				continue
			}
			p.signal(rt, syscall.Signal(n))
		case size, ok := <-sizes:
			if !ok {
				sizes = nil
				continue
			}
			if err := s.resize(size); err != nil {
				p.log.Warn("resize terminal of step", "id", p.id, "error", err)
			}
			p.signal(rt, unix.SIGWINCH) // the runtime passes the new size on
		}
	}
}

// signal sends a signal to the process. The runtime hands on all it gets; what it cannot catch is sent by a second call.
func (p *process) signal(rt *os.Process, sig syscall.Signal) {
	err := func() error {
		if sig == unix.SIGKILL || sig == unix.SIGSTOP {
			return p.rt.command(context.Background(), "kill", p.id, fmt.Sprint(int(sig))).Run()
		}
		return rt.Signal(sig)
	}()
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.log.Warn("signal step", "id", p.id, "signal", sig, "error", err)
	}
}

// kill ends the container: the first process of a pid namespace takes all others with it. A container that is being made is
// waited for, since killing a runtime half-way leaves its pieces to be searched for.
func (p *process) kill(rt *os.Process, running, exited <-chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), killGrace)
	defer cancel()
	select {
	case <-running:
		if err := p.rt.command(ctx, "kill", p.id, "KILL").Run(); err != nil {
			break // it ended by itself, or the runtime cannot
		}
		select {
		case <-exited:
			return
		case <-ctx.Done():
			p.log.Warn("step does not end when killed", "id", p.id)
		}
	case <-exited:
		return
	case <-ctx.Done():
		p.log.Warn("step to be killed does not start", "id", p.id)
	}
	_ = rt.Kill() // it may have ended by itself
}

// outcome makes an exit code or an error of how the runtime ended.
func (p *process) outcome(ctx context.Context, err error) (int, error) {
	_, startErr := os.Stat(p.pidFile())
	ran := !errors.Is(startErr, fs.ErrNotExist)
	if err == nil && ran {
		return 0, nil
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	var exit *exec.ExitError
	switch {
	case !ran:
		if err == nil {
			err = errors.New("ended without starting the command")
		}
		return 0, startFailure(p.rt.path, p.logFile(), p.args, err)
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode(), nil
	default:
		return 0, &RuntimeError{Runtime: p.rt.path, Reason: err.Error()}
	}
}

// streams is a process's input and output.
type streams struct {
	tty       *tty
	closers   []io.Closer // ours, closed at the end
	childOnly []io.Closer // closed once the child has them
	wg        sync.WaitGroup
}

// attach gives cmd its input and output.
func attach(cmd *exec.Cmd, o IO, log *slog.Logger) (*streams, error) {
	s := &streams{}
	if o.Tty {
		return s, s.attachTTY(cmd, o)
	}
	cmd.Stdout, cmd.Stderr = o.Stdout, o.Stderr
	if o.Stdin == nil {
		return s, nil
	}
	// A pipe of our own: exec would wait for a reader that may never end.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdin = r
	s.childOnly = append(s.childOnly, r)
	s.closers = append(s.closers, o.Stdin)
	go func() {
		if _, err := io.Copy(w, o.Stdin); err != nil && !errors.Is(err, unix.EPIPE) && !isClosed(err) {
			log.Warn("input of step", "error", err)
		}
		_ = w.Close() // the reader sees the end either way
	}()
	return s, nil
}

func isClosed(err error) bool {
	return errors.Is(err, io.ErrClosedPipe) || errors.Is(err, fs.ErrClosed)
}

// started is called when the child holds its ends.
func (s *streams) started() {
	for _, c := range s.childOnly {
		_ = c.Close() // the child has its own
	}
	s.childOnly = nil
}

func (s *streams) close() {
	s.started()
	for _, c := range s.closers {
		_ = c.Close() // nothing of ours is buffered
	}
	s.wg.Wait()
	if s.tty != nil {
		_ = s.tty.master.Close() // all was read
	}
}

func (s *streams) resize(size Size) error {
	if s.tty == nil {
		return nil
	}
	return s.tty.resize(size)
}
