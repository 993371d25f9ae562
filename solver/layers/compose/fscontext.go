//go:build linux

package compose

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Error is a refusal of the kernel to mount.
type Error struct {
	// Op is what was being done, such as "mount erofs".
	Op string
	// Log is what the kernel wrote about it; may be empty.
	Log string
	// Err is the errno.
	Err error
}

func (e *Error) Error() string {
	if e.Log == "" {
		return e.Op + ": " + e.Err.Error()
	}
	return e.Op + ": " + e.Err.Error() + " (" + e.Log + ")"
}

func (e *Error) Unwrap() error { return e.Err }

// fsContext is a file system being configured.
type fsContext struct {
	fd int
	op string
}

func openContext(fsType string) (*fsContext, error) {
	fd, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, &Error{Op: "open file system type " + fsType, Err: err}
	}
	return &fsContext{fd: fd, op: "mount " + fsType}, nil
}

func (c *fsContext) close() { _ = unix.Close(c.fd) } // nothing was written through it

func (c *fsContext) fail(what string, err error) error {
	return &Error{Op: c.op + ": " + what, Log: c.log(), Err: err}
}

// log reads what the kernel has to say, one message per read.
func (c *fsContext) log() string {
	var lines []string
	buf := make([]byte, 4096)
	for len(lines) < 16 {
		n, err := unix.Read(c.fd, buf)
		if err != nil || n <= 0 {
			break
		}
		line := strings.TrimSpace(string(buf[:n]))
		// "e ", "w " and "i " are the severities.
		if len(line) > 2 && line[1] == ' ' {
			line = line[2:]
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "; ")
}

func (c *fsContext) set(key, value string) error {
	if err := unix.FsconfigSetString(c.fd, key, value); err != nil {
		return c.fail(fmt.Sprintf("set %s=%s", key, value), err)
	}
	return nil
}

func (c *fsContext) flag(key string) error {
	if err := unix.FsconfigSetFlag(c.fd, key); err != nil {
		return c.fail("set "+key, err)
	}
	return nil
}

func (c *fsContext) setFD(key string, fd int) error {
	if err := unix.FsconfigSetFd(c.fd, key, fd); err != nil {
		return c.fail("set "+key, err)
	}
	return nil
}

// mount creates the file system and returns a detached mount of it.
func (c *fsContext) mount(attrs int) (int, error) {
	if err := unix.FsconfigCreate(c.fd); err != nil {
		return -1, c.fail("create", err)
	}
	fd, err := unix.Fsmount(c.fd, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return -1, c.fail("mount", err)
	}
	return fd, nil
}

// Unsupported says of an error that the kernel lacks what was asked for, rather than having been asked wrongly.
func Unsupported(err error) bool {
	return errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP) ||
		errors.Is(err, unix.ENOTBLK) || errors.Is(err, unix.EPERM)
}
