package executor

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// fileWatch waits for one file to appear.
type fileWatch struct {
	name   string
	events *os.File
}

// watchFile begins to watch for name, whose directory exists.
func watchFile(name string) (*fileWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch for start of step: %w", err)
	}
	w := &fileWatch{name: name, events: os.NewFile(uintptr(fd), "inotify")}
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(name), unix.IN_MOVED_TO|unix.IN_CLOSE_WRITE); err != nil {
		w.close()
		return nil, fmt.Errorf("watch for start of step: %w", err)
	}
	return w, nil
}

// wait returns true when the file is there, false when close was called and it is not.
func (w *fileWatch) wait() bool {
	buf := make([]byte, 4096)
	for {
		if _, err := os.Stat(w.name); err == nil {
			return true
		}
		if _, err := w.events.Read(buf); err != nil {
			_, err := os.Stat(w.name)
			return err == nil
		}
	}
}

// close ends the watch. wait may be under way.
func (w *fileWatch) close() { _ = w.events.Close() }
