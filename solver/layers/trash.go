package layers

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// trash deletes directories in the background, at low priority: deleting a tree takes longer than making it, and no build
// should wait for that. What is to go is renamed into one directory first, so that it is gone from its place at once, and
// a crash leaves it where the next start looks.
type trash struct {
	dir string
	log *slog.Logger

	mu    sync.Mutex
	quick []trashItem   // files and closings, done first
	trees []trashItem   // directories
	size  int64         // of what was not deleted yet
	empty chan struct{} // closed when the queue is; replaced when it no longer is
	wake  chan struct{}

	stop context.CancelFunc
	done chan struct{}
}

type trashItem struct {
	path string // "" if there is only something to do
	size int64
	do   func() error
}

func newTrash(dir string, log *slog.Logger) *trash {
	ctx, stop := context.WithCancel(context.Background())
	t := &trash{dir: dir, log: log, empty: make(chan struct{}), wake: make(chan struct{}, 1), stop: stop, done: make(chan struct{})}
	close(t.empty)
	go t.run(ctx)
	return t
}

// add takes path away. size is what deleting it gives back. Missing things are fine.
func (t *trash) add(path string, size int64) error {
	info, err := os.Lstat(path)
	if err == nil {
		to := filepath.Join(t.dir, newName())
		if err = os.Rename(path, to); err == nil {
			t.push(trashItem{path: to, size: size}, info.IsDir())
		}
	}
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("throw away %s: %w", path, err)
	}
	return nil
}

// later has do done before any deleting that follows, unless the store is closed before.
func (t *trash) later(do func() error) { t.push(trashItem{do: do}, false) }

func (t *trash) push(item trashItem, tree bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.quick)+len(t.trees) == 0 {
		t.empty = make(chan struct{})
	}
	if tree {
		t.trees = append(t.trees, item)
	} else {
		t.quick = append(t.quick, item)
	}
	t.size += item.size
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// adopt takes what an earlier run left in the directory.
func (t *trash) adopt() error {
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return fmt.Errorf("read trash: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(t.dir, e.Name())
		size, err := diskUsage(path)
		if err != nil {
			return err
		}
		if err := t.add(path, size); err != nil {
			return err
		}
	}
	return nil
}

// pending is the size of what was not deleted yet.
func (t *trash) pending() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.size
}

// drain waits until all that was added before is deleted.
func (t *trash) drain(ctx context.Context) error {
	t.mu.Lock()
	empty := t.empty
	t.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-t.done:
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// close stops deleting; the rest is for the next start.
func (t *trash) close() {
	t.stop()
	<-t.done
}

func (t *trash) run(ctx context.Context) {
	defer close(t.done)
	// The thread is never unlocked: its priority is spoilt, so it ends with this goroutine.
	runtime.LockOSThread()
	lowerPriority()
	for ctx.Err() == nil {
		queue := t.next()
		if queue == nil {
			select {
			case <-t.wake:
			case <-ctx.Done():
			}
			continue
		}
		item := t.first(queue)
		if err := item.run(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			t.log.Warn("cannot delete what was thrown away", "path", item.path, "error", err)
		}
		t.shift(queue)
	}
}

func (i trashItem) run(ctx context.Context) error {
	if i.do != nil {
		return i.do()
	}
	return removeTree(ctx, i.path)
}

// next is the queue to take from. Only run takes out of queues, so its first item stays the first.
func (t *trash) next() *[]trashItem {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case len(t.quick) > 0:
		return &t.quick
	case len(t.trees) > 0:
		return &t.trees
	}
	return nil
}

func (t *trash) first(queue *[]trashItem) trashItem {
	t.mu.Lock()
	defer t.mu.Unlock()
	return (*queue)[0]
}

func (t *trash) shift(queue *[]trashItem) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.size -= (*queue)[0].size
	*queue = (*queue)[1:]
	if len(t.quick)+len(t.trees) == 0 {
		close(t.empty)
	}
}

// removeTree is os.RemoveAll that can be stopped between the directories of the first two levels.
func removeTree(ctx context.Context, path string) error {
	if err := os.Remove(path); err == nil || os.IsNotExist(err) {
		return nil
	}
	return removeLevels(ctx, path, 2)
}

func removeLevels(ctx context.Context, path string, levels int) error {
	if levels == 0 {
		return os.RemoveAll(path)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return os.RemoveAll(path)
	}
	for _, e := range entries {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		p := filepath.Join(path, e.Name())
		if e.IsDir() {
			err = removeLevels(ctx, p, levels-1)
		} else {
			err = os.Remove(p)
		}
		if err != nil {
			return err
		}
	}
	return os.Remove(path)
}

// lowerPriority makes the calling thread yield to others for the processor and the disk. Failing to is no harm.
func lowerPriority() {
	// Low, not idle: with a limit on disk, somebody may come to wait for the space.
	const nice, ioprioWhoProcess, ioprioBestEffortLowest = 10, 1, 2<<13 | 7
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, nice)
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, ioprioBestEffortLowest)
}
