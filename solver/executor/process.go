package executor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is one process of a container: a call of the runtime in the foreground, which makes the container or joins it, hands
// input and output through, waits for the process and ends with its exit code.
type process struct {
	rt     *runtime
	id     string
	bundle string
	args   []string
	// joins is the file that describes a further process of a container that runs; empty makes the container.
	joins string
	// target is that further process, set before it is said to run.
	target *os.Process
	// keep leaves the container's cgroup to be looked at; the container must then be deleted.
	keep bool
	io   IO
	log  *slog.Logger
}

// killGrace is how long a runtime may take to make a container that is to be killed, or to end after it was, before it is
// killed too. It needs some tens of milliseconds.
const killGrace = 10 * time.Second

func (p *process) pidFile() string { return p.file("pid") }
func (p *process) logFile() string { return p.file("log.json") }

func (p *process) file(name string) string {
	if p.joins != "" {
		return p.joins + "." + name
	}
	return filepath.Join(p.bundle, name)
}

// command is what the runtime is told.
func (p *process) command() []string {
	args := []string{"--log", p.logFile(), "--log-format", "json"}
	if p.joins != "" {
		return append(args, "exec", "--process", p.joins, "--pid-file", p.pidFile(), p.id)
	}
	args = append(args, "run", "--bundle", p.bundle, "--pid-file", p.pidFile())
	if p.keep {
		args = append(args, "--keep")
	}
	return append(args, p.id)
}

// run runs the process to its end and returns its exit code. With one that made the container, every process of the container
// is gone then. Cancelling ctx kills it, or them all, at once.
func (p *process) run(ctx context.Context) (int, error) {
	// Not CommandContext: it would kill the runtime and not what the runtime runs.
	cmd := p.rt.command(context.WithoutCancel(ctx), p.command()...)
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
	if p.target != nil {
		_ = p.target.Release() // a descriptor
	}
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
	if err := p.aim(); err != nil {
		p.log.Warn("find process of step", "id", p.id, "error", err)
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
		if p.target != nil && sig != unix.SIGWINCH {
			return p.target.Signal(sig)
		}
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
		if err := p.killRunning(ctx); err != nil {
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

// aim finds the process that joined the container: signals for it must not go to the container's first.
func (p *process) aim() error {
	if p.joins == "" {
		return nil
	}
	b, err := os.ReadFile(p.pidFile())
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("pid file: %w", err)
	}
	// The runtime, its parent, has just written the id; the process found holds on to it by descriptor.
	p.target, err = os.FindProcess(pid)
	return err
}

func (p *process) killRunning(ctx context.Context) error {
	if p.joins == "" {
		return p.rt.command(ctx, "kill", p.id, "KILL").Run()
	}
	if p.target == nil {
		return os.ErrProcessDone
	}
	return p.target.Kill()
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
