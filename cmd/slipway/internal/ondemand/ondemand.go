// Package ondemand starts the daemon when a command needs one and none answers.
package ondemand

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// idleTimeout is how long a daemon that nobody asked for stays without work.
const idleTimeout = 30 * time.Minute

// startTimeout is how long a daemon may take until it answers: it may have to clean up after a crash first.
const startTimeout = time.Minute

// Connect dials the daemon's socket, starting a daemon in the background if none answers; it says so once on notice. The
// daemon outlives the program, logs to a file beside its socket, and leaves when idle.
func Connect(ctx context.Context, socket string, notice io.Writer) (net.Conn, error) {
	conn, err := dial(ctx, socket)
	if err == nil {
		return conn, nil
	}
	if !absent(err) {
		return nil, fmt.Errorf("connect to the daemon: %w", err)
	}
	// The directory is the daemon's own; only its owner may put sockets into it.
	if err := os.MkdirAll(filepath.Dir(socket), 0o711); err != nil {
		return nil, fmt.Errorf("start the daemon: %w", err)
	}
	unlock, err := lock(ctx, socket+".start")
	if err != nil {
		return nil, fmt.Errorf("start the daemon: %w", err)
	}
	defer unlock()
	// Whoever held the lock before may have started it.
	if conn, err := dial(ctx, socket); err == nil {
		return conn, nil
	}
	return start(ctx, socket, notice)
}

func start(ctx context.Context, socket string, notice io.Writer) (net.Conn, error) {
	binary, err := find()
	if err != nil {
		return nil, err
	}
	logPath := strings.TrimSuffix(socket, ".sock") + ".log"
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start the daemon: open its log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(binary, "--addr", "unix://"+socket, "--idle-timeout", idleTimeout.String())
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	// A session of its own keeps the terminal's Ctrl-C from it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the daemon: %w", err)
	}
	fmt.Fprintf(notice, "slipway: started %s in the background (log: %s)\n", filepath.Base(binary), logPath)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if conn, err := dial(ctx, socket); err == nil {
			return conn, nil
		}
		select {
		case err := <-ended:
			return nil, fmt.Errorf("the daemon ended at once (%w); its log %s ends with:\n%s", err, logPath, tail(logPath))
		case <-ctx.Done():
			return nil, fmt.Errorf("the daemon does not answer on %s (log: %s): %w", socket, logPath, ctx.Err())
		case <-tick.C:
		}
	}
}

func dial(ctx context.Context, socket string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", socket)
}

// absent tells whether an error of dial means that there is no daemon, rather than one we may not talk to.
func absent(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// find looks for slipwayd beside this program, then in PATH.
func find() (string, error) {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "slipwayd")
		if fi, err := os.Stat(beside); err == nil && !fi.IsDir() {
			return beside, nil
		}
	}
	path, err := exec.LookPath("slipwayd")
	if err != nil {
		return "", fmt.Errorf("no daemon is running, and slipwayd was found neither beside slipway nor in PATH: %w", err)
	}
	return path, nil
}

// lock takes an exclusive lock on a file, so that of several commands started at once one starts the daemon.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			_ = f.Close()
			return nil, err
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// tail returns the last lines of a file, for an error message.
func tail(path string) string {
	const most = 4 << 10
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if size, err := f.Seek(0, io.SeekEnd); err == nil && size > most {
		_, _ = f.Seek(size-most, io.SeekStart)
	} else {
		_, _ = f.Seek(0, io.SeekStart)
	}
	b, _ := io.ReadAll(io.LimitReader(f, most))
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return "  " + strings.Join(lines[max(0, len(lines)-10):], "\n  ")
}
