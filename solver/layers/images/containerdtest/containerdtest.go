// Package containerdtest runs containerd for tests: the host's, with directories of its own.
package containerdtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// startTime bounds the wait for containerd to answer, and to end.
const startTime = 30 * time.Second

// Missing says why containerd cannot be run here; nil if it can.
func Missing() error {
	if os.Geteuid() != 0 {
		return errors.New("containerd needs root")
	}
	for _, program := range []string{"containerd", "ctr"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("needs %s: %w", program, err)
		}
	}
	return nil
}

// Server is a containerd. It belongs to one goroutine.
type Server struct {
	// Address is its socket.
	Address string

	dir   string
	cmd   *exec.Cmd
	ended chan error // what the process ended with
	log   *os.File
}

// config leaves out what needs more than directories.
const config = `version = 2
root = "%[1]s/root"
state = "%[1]s/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.btrfs"]
[grpc]
address = "%[1]s/c.sock"
[ttrpc]
address = "%[1]s/t.sock"
`

// Start starts a containerd; Close ends it and removes its directories.
func Start() (*Server, error) {
	// The names of sockets are short.
	dir, err := os.MkdirTemp("", "swc")
	if err != nil {
		return nil, err
	}
	s := &Server{Address: filepath.Join(dir, "c.sock"), dir: dir}
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), fmt.Appendf(nil, config, dir), 0o600); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if s.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.Run(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Run starts it again after Stop, and returns when it answers.
func (s *Server) Run() error {
	s.cmd = exec.Command("containerd", "--config", filepath.Join(s.dir, "config.toml"))
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	// It must not outlive a test that is killed. The signal comes when the thread ends that started it: one is kept for that.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd, started, ended := s.cmd, make(chan error, 1), make(chan error, 1)
	s.ended = ended
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		s.cmd = nil
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	for {
		_, err := s.run(ctx, "version")
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			log, _ := os.ReadFile(s.log.Name())
			return fmt.Errorf("containerd does not answer: %w; its log:\n%s", err, log)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Stop ends it, as a crash does if kill is set.
func (s *Server) Stop(kill bool) error {
	if s.cmd == nil {
		return nil
	}
	sig := syscall.SIGTERM
	if kill {
		sig = syscall.SIGKILL
	}
	if err := s.cmd.Process.Signal(sig); err != nil {
		return err
	}
	err := <-s.ended
	s.cmd = nil
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled() {
		return nil
	}
	return err
}

// Close ends it and removes all it has.
func (s *Server) Close() error {
	err := s.Stop(false)
	if s.log != nil {
		err = errors.Join(err, s.log.Close())
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// Ctr runs containerd's own client in a namespace and returns what it prints.
func (s *Server) Ctr(ctx context.Context, namespace string, args ...string) (string, error) {
	return s.run(ctx, append([]string{"--namespace", namespace}, args...)...)
}

func (s *Server) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "ctr", append([]string{"--address", s.Address}, args...)...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}
