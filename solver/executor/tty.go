package executor

import (
	"io"
	"os"
	"os/exec"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"
)

// tty is a terminal between us and the runtime, which makes another one inside the container and copies between the two.
type tty struct {
	master console.Console
}

// attachTTY gives cmd a terminal. All output arrives on stdout, as it does on any terminal.
func (s *streams) attachTTY(cmd *exec.Cmd, o IO) error {
	master, name, err := console.NewPty()
	if err != nil {
		return err
	}
	slave, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		_ = master.Close() // unused
		return err
	}
	s.tty = &tty{master: master}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	s.childOnly = append(s.childOnly, slave)
	if o.Stdin != nil {
		s.closers = append(s.closers, o.Stdin)
		go func() {
			_, _ = io.Copy(master, o.Stdin) // ends with the terminal or its user, whichever is first
		}()
	}
	out := o.Stdout
	if out == nil {
		out = io.Discard
	}
	s.wg.Go(func() {
		// Reading fails with EIO once the last process has closed the terminal: all was read by then.
		_, _ = io.Copy(out, master)
	})
	return nil
}

func (t *tty) resize(size Size) error {
	return t.master.Resize(console.WinSize{Height: uint16(size.Rows), Width: uint16(size.Cols)})
}
