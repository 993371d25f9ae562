package peer

import (
	"errors"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Process is a program on this host that may end.
type Process struct{ pidfd *os.File }

// Self names this process so that a peer on the same host can tell whether it is connected to it directly; see [Direct].
func Self() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strconv.Itoa(os.Getpid()) + "@" + strings.TrimSpace(string(boot))
}

// Direct returns the process that holds the other end of a unix socket if it is the one that calls itself claimed ([Self]), and nil if
// it is another: then somebody stands between, such as a tunnel, whose end says nothing of the peer's. The caller closes
// the process.
func Direct(conn net.Conn, claimed string) *Process {
	for conn != nil {
		if c, ok := conn.(*net.UnixConn); ok {
			return direct(c, claimed)
		}
		conn = inner(conn)
	}
	return nil
}

func direct(c *net.UnixConn, claimed string) *Process {
	pid, boot, ok := strings.Cut(claimed, "@")
	_, own, _ := strings.Cut(Self(), "@")
	_, seen, known := credentialsOf(c)
	if !ok || !known || own == "" || boot != own || pid != strconv.Itoa(int(seen)) {
		return nil
	}
	fd, err := peerPidfd(c, int(seen))
	if err != nil {
		return nil // an old kernel, or the process has ended: then its connection is about to
	}
	// The runtime's poller waits on it, which wants it not to block.
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil
	}
	return &Process{pidfd: os.NewFile(uintptr(fd), "pidfd")}
}

// peerPidfd asks the socket, which cannot mean another process of the same number, and the process table where the kernel is too old.
func peerPidfd(c *net.UnixConn, pid int) (fd int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	ctlErr := raw.Control(func(s uintptr) { fd, err = unix.GetsockoptInt(int(s), unix.SOL_SOCKET, unix.SO_PEERPIDFD) })
	if err := errors.Join(ctlErr, err); err != nil {
		return unix.PidfdOpen(pid, 0)
	}
	return fd, nil
}

// Wait returns true when the process has ended, and false when Close was called first.
func (p *Process) Wait() bool {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return false
	}
	ended := false
	err = raw.Read(func(fd uintptr) bool {
		ended = readable(int(fd))
		return ended
	})
	return err == nil && ended
}

// Ended tells whether the process has.
func (p *Process) Ended() (ended bool) {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return false
	}
	return raw.Control(func(fd uintptr) { ended = readable(int(fd)) }) == nil && ended
}

// Close lets go of the process, and ends Wait.
func (p *Process) Close() error { return p.pidfd.Close() }

// readable is what a pidfd is when its process has ended.
func readable(fd int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return err == nil && n > 0
}

// credentialsOf are those of the process that made the other end of the connection.
func credentialsOf(c *net.UnixConn) (uid uint32, pid int32, ok bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0, false
	}
	var cred *unix.Ucred
	ctlErr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if ctlErr != nil || err != nil {
		return 0, 0, false
	}
	return cred.Uid, cred.Pid, true
}
