package layers

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// syncLayers makes sure that layers survive a power cut: blobs one by one, directories by syncing the file system.
func (s *Store) syncLayers(ctx context.Context, held []*layer) error {
	todo, dirs := map[*layer]string{}, false
	s.mu.Lock()
	for _, l := range held {
		src := l.source()
		switch {
		case src != nil && src.Boot != "":
			todo[src] = s.at.blob(src.DiffID)
		case src == nil && l.Boot != "":
			todo[l], dirs = "", true
		}
	}
	s.mu.Unlock()
	if dirs {
		if err := s.syncfs(); err != nil {
			return err
		}
	}
	for _, path := range todo {
		if path == "" || dirs {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := syncFile(path); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range todo {
		s.synced(l)
	}
	return nil
}

// synced notes that the bytes of l are on stable storage. It is called under mu.
func (s *Store) synced(l *layer) {
	l.Boot = ""
	delete(s.unsynced, l)
	s.save(l, false)
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

// syncfs waits until all that was written to the file system of the root is on stable storage.
func (s *Store) syncfs() error {
	if err := unix.Syncfs(int(s.lock.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", s.o.Root, err)
	}
	return nil
}

// settleDisk lets everything survive the next boot. It is part of closing.
func (s *Store) settleDisk() error {
	s.mu.Lock()
	n := len(s.unsynced)
	s.mu.Unlock()
	if n == 0 {
		return nil
	}
	if err := s.syncfs(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.unsynced {
		s.synced(l)
	}
	return nil
}
