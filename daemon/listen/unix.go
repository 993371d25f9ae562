package listen

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// InUseError is returned when something already answers on a socket.
type InUseError struct{ Path string }

func (e *InUseError) Error() string {
	return fmt.Sprintf("socket %s is in use: another daemon answers there", e.Path)
}

// Options says whom a unix socket belongs to and who may connect, and how tcp connections are secured.
type Options struct {
	UID, GID *int
	Mode     os.FileMode // 0 is 0660
	TLS      *tls.Config // nil is none
}

// Unix listens at "unix:///path" or a plain path. A socket file that nobody answers on is what a killed daemon left, and is
// replaced; a lock beside it keeps two daemons from both finding that. Closing the listener removes the socket.
func Unix(addr string, o Options) (net.Listener, error) {
	path := strings.TrimPrefix(addr, "unix://")
	if path == "" || strings.Contains(path, "://") {
		return nil, fmt.Errorf("listen on %q: not a unix:// address", addr)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, fmt.Errorf("make directory of socket: %w", err)
	}
	lock, err := takeLock(path)
	if err != nil {
		return nil, err
	}
	l, err := listenUnix(path, o)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &unixListener{Listener: l, lock: lock}, nil
}

func takeLock(path string) (*os.File, error) {
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of socket: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		closeErr := lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &InUseError{Path: path}
		}
		return nil, errors.Join(fmt.Errorf("lock socket %s: %w", path, err), closeErr)
	}
	return lock, nil
}

func listenUnix(path string, o Options) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	mode := o.Mode
	if mode == 0 {
		mode = 0o660
	}
	err = os.Chmod(path, mode)
	if err == nil && (o.UID != nil || o.GID != nil) {
		err = os.Chown(path, idOr(o.UID), idOr(o.GID))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set owner and mode of socket: %w", err), l.Close())
	}
	return l, nil
}

func idOr(id *int) int {
	if id == nil {
		return -1
	}
	return *id
}

// removeStale removes a socket that nobody answers on. Anything else at its place is left alone and in the way.
func removeStale(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at socket: %w", err)
	}
	if fi.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("listen on %s: a file that is no socket is in the way", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		return errors.Join(&InUseError{Path: path}, c.Close())
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove stale socket: %w", err)
	}
	return nil
}

type unixListener struct {
	net.Listener
	lock *os.File
}

// Close stops listening and gives the lock back. The lock file stays: removing it would let two daemons hold two locks of
// one name.
func (l *unixListener) Close() error {
	return errors.Join(l.Listener.Close(), l.lock.Close())
}
