package executor

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"sync"

	"golang.org/x/sys/unix"
)

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
