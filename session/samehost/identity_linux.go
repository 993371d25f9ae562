package samehost

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// identity is who somebody is to the file systems of this host.
type identity struct {
	uid, gid uint32
	groups   []uint32 // sorted, each once
	caps     uint64   // effective capabilities
}

// allFiles are the capabilities with which it makes no difference to which groups one belongs.
const allFiles = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID

// alike says whether both may do the same.
func (id identity) alike(other identity) bool {
	return id.uid == other.uid && id.gid == other.gid && id.caps == other.caps &&
		(id.caps&allFiles == allFiles || slices.Equal(id.groups, other.groups))
}

// key names the identity: equal identities may read the same files.
func (id identity) key() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d:%d:%x", id.uid, id.gid, id.caps)
	for _, g := range id.groups {
		fmt.Fprintf(&b, ",%d", g)
	}
	return b.String()
}

// maxGroups is the kernel's limit.
const maxGroups = 65536

// peerOf asks the kernel who connected. What a client without root's user id may do by capabilities is not asked: it counts as
// nothing, and where that is too little the session serves.
func peerOf(c *net.UnixConn) (identity, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return identity{}, err
	}
	var id identity
	var pid int32
	cerr := raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err != nil {
			return
		}
		id.uid, id.gid, pid = cred.Uid, cred.Gid, cred.Pid
		id.groups, err = peerGroups(int(fd))
	})
	if err = errors.Join(cerr, err); err != nil {
		return identity{}, fmt.Errorf("credentials of the client: %w", err)
	}
	if id.uid == 0 {
		id.caps, err = capsOf(c, pid)
	}
	return id, err
}

func peerGroups(fd int) ([]uint32, error) {
	for n := 64; ; {
		buf := make([]uint32, n)
		size := uint32(len(buf) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0)
		if errno == unix.ERANGE && size <= maxGroups*4 {
			n = int(size / 4)
			continue
		}
		if errno != 0 {
			return nil, os.NewSyscallError("getsockopt SO_PEERGROUPS", errno)
		}
		return settled(buf[:size/4]), nil
	}
}

func settled(groups []uint32) []uint32 {
	groups = slices.Clone(groups)
	slices.Sort(groups)
	return slices.Compact(groups)
}

// capsOf reads what root's process may really do: root in a container may be nobody much. It is read by number, so afterwards
// the process must still be the one that connected.
func capsOf(c *net.UnixConn, pid int32) (uint64, error) {
	if pid <= 0 {
		return 0, errors.New("the client is in another process namespace")
	}
	proc := "/proc/" + strconv.Itoa(int(pid))
	theirs, err := os.Stat(proc + "/ns/user")
	if err != nil {
		return 0, err
	}
	ours, err := os.Stat("/proc/self/ns/user")
	if err != nil {
		return 0, err
	}
	caps, err := effective(proc + "/status")
	if err != nil {
		return 0, err
	}
	if !os.SameFile(theirs, ours) {
		caps = 0 // they are good in its own namespace only
	}
	// Still connected, the descriptor of the socket is still open: so is the process that has it, or one it was given to.
	cred, err := stillThere(c)
	if err != nil || cred != pid {
		return 0, errors.Join(errors.New("the client is gone"), err)
	}
	return caps, nil
}

// stillThere makes sure that the process that connected has not ended, where the kernel can tell.
func stillThere(c *net.UnixConn) (pid int32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	const soPeerPidfd = 77 // SO_PEERPIDFD, since Linux 6.5
	cerr := raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err != nil {
			return
		}
		pid = cred.Pid
		pidfd, perr := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, soPeerPidfd)
		if errors.Is(perr, unix.ENOPROTOOPT) {
			return // an older kernel: the number has to do
		}
		if err = perr; err != nil {
			return
		}
		err = errors.Join(unix.PidfdSendSignal(pidfd, 0, nil, 0), unix.Close(pidfd))
	})
	return pid, errors.Join(cerr, err)
}

// effective reads the effective capabilities from a status file of /proc.
func effective(path string) (uint64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	s := bufio.NewScanner(bytes.NewReader(b))
	for s.Scan() {
		if v, ok := strings.CutPrefix(s.Text(), "CapEff:"); ok {
			return strconv.ParseUint(strings.TrimSpace(v), 16, 64)
		}
	}
	return 0, fmt.Errorf("%s: no capabilities in it", path)
}

// self is the identity of this process.
func self() (identity, error) {
	gs, err := unix.Getgroups()
	if err != nil {
		return identity{}, err
	}
	id := identity{uid: uint32(unix.Geteuid()), gid: uint32(unix.Getegid())}
	for _, g := range gs {
		id.groups = append(id.groups, uint32(g))
	}
	id.groups = settled(id.groups)
	id.caps, err = effective("/proc/self/status")
	return id, err
}

// become gives the calling thread, which must be locked and never unlocked again, another identity where files are concerned.
func become(own, id identity) error {
	if !slices.Equal(own.groups, id.groups) {
		var p unsafe.Pointer
		if len(id.groups) > 0 {
			p = unsafe.Pointer(&id.groups[0])
		}
		// Package syscall would change all threads.
		if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(id.groups)), uintptr(p), 0); errno != 0 {
			return os.NewSyscallError("setgroups", errno)
		}
	}
	for _, c := range []struct {
		nr       uintptr
		have, to uint32
		name     string
	}{{unix.SYS_SETFSGID, own.gid, id.gid, "setfsgid"}, {unix.SYS_SETFSUID, own.uid, id.uid, "setfsuid"}} {
		if c.have == c.to {
			continue
		}
		// These calls have no errors: they return what was, so asking again tells whether it worked.
		_, _, _ = unix.RawSyscall(c.nr, uintptr(c.to), 0, 0)
		if now, _, _ := unix.RawSyscall(c.nr, ^uintptr(0), 0, 0); uint32(now) != c.to {
			return fmt.Errorf("%s %d: refused", c.name, c.to)
		}
	}
	return limitCaps(id.caps)
}

// becomeQuietly is [become] without its side effect on the whole process, which would be kept from being examined.
func becomeQuietly(own, id identity) error {
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		return os.NewSyscallError("prctl", err)
	}
	if err := become(own, id); err != nil {
		return err
	}
	if dumpable != 1 {
		return nil
	}
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0))
}

// limitCaps takes from the calling thread the capabilities that are not among caps.
func limitCaps(caps uint64) error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	for i := range data {
		data[i].Effective &= uint32(caps >> (32 * i))
	}
	if err := unix.Capset(&head, &data[0]); err != nil {
		return os.NewSyscallError("capset", err)
	}
	return nil
}
