package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// daemon is a slipwayd or a buildkitd of one side.
type daemon struct {
	dir    string
	socket string
	cmd    *exec.Cmd
	log    *os.File
}

func (d *daemon) addr() string { return "unix://" + d.socket }

// startDaemon starts a daemon whose state is in dir, and waits until it answers.
func (b *bench) startDaemon(ctx context.Context, kind, dir string) (*daemon, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	d := &daemon{dir: dir, socket: filepath.Join(dir, "s.sock")}
	args := []string{"--addr", d.addr(), "--root", filepath.Join(dir, "root"), "--oci-worker-binary", b.options.runtime, "--oci-worker-net", "host"}
	program := b.programs.slipwayd
	if kind == "buildkitd" {
		program = b.programs.buildkitd
		// No file of the host's, and no collecting while something is measured; slipwayd's is once a minute after builds, here too.
		args = append(args, "--config", os.DevNull, "--containerd-worker", "false", "--oci-worker-snapshotter", "overlayfs", "--oci-worker-gc=false")
	} else {
		config := filepath.Join(dir, "slipwayd.toml")
		if err := os.WriteFile(config, nil, 0o600); err != nil {
			return nil, err
		}
		args = append(args, "--config", config, "--oci-worker-gc=false")
		if b.options.debug {
			args = append(args, "--debugaddr", "unix://"+filepath.Join(dir, "debug.sock"))
			fmt.Fprintln(os.Stderr, "profiles at", filepath.Join(dir, "debug.sock"))
		}
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	d.log = log
	d.cmd = exec.Command(program, args...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	if err := d.wait(ctx); err != nil {
		return nil, errors.Join(err, d.stop())
	}
	return d, nil
}

// wait waits until somebody listens.
func (d *daemon) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for ctx.Err() == nil {
		c, err := (&net.Dialer{}).DialContext(ctx, "unix", d.socket)
		if err == nil {
			return c.Close()
		}
		time.Sleep(time.Millisecond)
	}
	return fmt.Errorf("%s does not answer; its log:\n%s", d.cmd.Path, d.logText())
}

func (d *daemon) logText() string {
	text, _ := os.ReadFile(d.log.Name())
	return string(text[max(0, len(text)-4<<10):])
}

// stop ends the daemon as an init system does. What it said of leaks is an error.
func (d *daemon) stop() error {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return errors.Join(err, d.log.Close())
	}
	done := make(chan error, 1)
	go func() { done <- d.cmd.Wait() }()
	var err error
	select {
	case err = <-done:
	case <-time.After(time.Minute):
		err = errors.Join(errors.New("it did not end in a minute"), d.cmd.Process.Kill(), <-done)
	}
	// buildkitd says that it was told to end, as a failure.
	if err != nil && !strings.Contains(d.cmd.Path, "buildkitd") {
		err = fmt.Errorf("end %s: %w; its log:\n%s", d.cmd.Path, err, d.logText())
	} else {
		err = nil
	}
	return errors.Join(err, d.log.Close())
}
