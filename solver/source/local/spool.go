package local

import (
	"errors"
	"os"
	"sync"
)

// spool keeps contents in a file without a name. What does not fit, or cannot be written, is not kept.
type spool struct {
	dir   string // where the file is made, once there is something to keep
	limit int64

	mu      sync.Mutex // guards what follows
	file    *os.File
	size    int64
	pending []byte // not written yet, the end of size
	broken  bool
}

// spoolChunk is how much is written at a time.
const spoolChunk = 1 << 20

// keep returns the place plus one, or 0.
func (s *spool) keep(b []byte) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken || s.size+int64(len(b)) > s.limit {
		return 0
	}
	at := s.size
	s.pending = append(s.pending, b...)
	s.size += int64(len(b))
	if len(s.pending) >= spoolChunk {
		s.flush()
	}
	return at + 1
}

// flush writes what is pending. mu is held.
func (s *spool) flush() {
	if len(s.pending) == 0 || s.broken {
		return
	}
	err := s.open()
	if err == nil {
		_, err = s.file.WriteAt(s.pending, s.size-int64(len(s.pending)))
	}
	s.pending = s.pending[:0]
	s.broken = err != nil
}

func (s *spool) open() error {
	if s.file != nil {
		return nil
	}
	f, err := os.CreateTemp(s.dir, ".spool-*")
	if err != nil {
		return err
	}
	if err := os.Remove(f.Name()); err != nil {
		return errors.Join(err, f.Close())
	}
	s.file = f
	return nil
}

// end makes what was kept readable from file, or tells that nothing is. Nothing is kept after it.
func (s *spool) end() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flush()
	s.pending = nil
	return !s.broken
}

// close forgets what was kept.
func (s *spool) close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}
