// Package detach leaves a build to a process in the background: the same command, started once more in a session of its own, with a log
// for its words. The parent returns when the daemon has the build.
package detach

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// env marks the process in the background, by the id of its build.
const env = "SLIPWAY_DETACHED"

// keptFor is how long logs stay.
const keptFor = 7 * 24 * time.Hour

// begun is what the process in the background says when the daemon has the build.
const begun = "begun"

// Started tells whether this is the process in the background, and the id that its build must have. Processes that it starts are not
// told.
func Started() (ref string, ok bool) {
	if ref, ok = os.LookupEnv(env); ok {
		syscall.CloseOnExec(pipeFD) // a daemon that it starts has no part in this
	}
	return ref, ok
}

// pipeFD is where the process in the background finds the way to its parent.
const pipeFD = 3

// Begun tells the parent that the daemon has the build. It is called once, in the process in the background.
func Begun() {
	_ = os.Unsetenv(env) // fails for a bad name only
	pipe := os.NewFile(pipeFD, "parent")
	if pipe == nil {
		return
	}
	_, _ = io.WriteString(pipe, begun) // who does not listen any more need not know
	_ = pipe.Close()
}

// Failed is a process in the background that ended before the daemon had the build.
type Failed struct {
	// Code is its exit code.
	Code int
	// Said is what it printed.
	Said string
}

func (e *Failed) Error() string { return fmt.Sprintf("exit status %d", e.Code) }

// Start runs the program with args again, in the background, and returns when the daemon has the build. stdin is handed on.
func Start(args []string, ref string, stdin *os.File) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("start a process in the background: %w", err)
	}
	log, err := openLog(ref)
	if err != nil {
		return fmt.Errorf("start a process in the background: open its log: %w", err)
	}
	defer log.Close()
	near, far, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start a process in the background: %w", err)
	}
	defer near.Close()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), env+"="+ref)
	if stdin != nil { // a nil file is not a nil reader
		cmd.Stdin = stdin
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{far}
	// Its own session keeps the terminal's signals, and the terminal's end, from it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start a process in the background: %w", err), far.Close())
	}
	_ = far.Close() // the other end of it is the process's
	said := make([]byte, len(begun))
	if _, err := io.ReadFull(near, said); err == nil && string(said) == begun {
		return nil
	}
	waitErr := cmd.Wait()
	if waitErr == nil {
		return nil // built already
	}
	text, _ := os.ReadFile(log.Name()) // as much of the reason as there is
	_ = os.Remove(log.Name())          // it is told now
	failed := &Failed{Code: 1, Said: string(text)}
	var exit *exec.ExitError
	if errors.As(waitErr, &exit) && exit.ExitCode() > 0 {
		failed.Code = exit.ExitCode()
	}
	return failed
}

// Log is where the process in the background writes.
func Log(ref string) (string, error) {
	dir, err := directory()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, ref+".log"), nil
}

func directory() (string, error) {
	dir := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(dir) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(dir, "slipway"), nil
}

// openLog makes the log, and removes those of long ago.
func openLog(ref string) (*os.File, error) {
	path, err := Log(ref)
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if fi, err := e.Info(); err == nil && strings.HasSuffix(e.Name(), ".log") && time.Since(fi.ModTime()) > keptFor {
			_ = os.Remove(filepath.Join(dir, e.Name())) // another time, perhaps
		}
	}
	return os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
}
