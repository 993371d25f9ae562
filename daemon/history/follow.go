package history

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/slipwaybuild/slipway/solver/progress"
)

// Follow returns a reader of a build's story from its beginning. A build that has not begun is waited for, wait at most; then the error
// is ErrNotFound. The caller closes the reader, which reads on when the build is forgotten.
func (s *Store) Follow(ctx context.Context, ref string, wait time.Duration) (*progress.Reader, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		r, arrived, err := s.open(ref)
		if r != nil || err != nil {
			return r, err
		}
		select {
		case <-arrived:
		case <-timer.C:
			return nil, fmt.Errorf("%w: %s", ErrNotFound, ref)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// open returns a reader if the build is known, and otherwise a channel that is closed when another build begins.
func (s *Store) open(ref string) (*progress.Reader, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.running[ref]; b != nil {
		r, err := b.journal.NewReader()
		return r, nil, err
	}
	for _, l := range s.loose {
		if l.ref == ref {
			r, err := l.journal.NewReader()
			return r, nil, err
		}
	}
	if s.ended[ref] == nil {
		return nil, s.arrived, nil
	}
	j, err := progress.Open(s.journalPath(ref))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, fmt.Errorf("%w: the story of %s is gone", ErrNotFound, ref)
	}
	if err != nil {
		return nil, nil, err
	}
	r, err := j.NewReader()
	return r, nil, err
}

func (s *Store) journalDir() string { return filepath.Join(s.o.Root, "journals") }

// journalPath is made of a digest: a ref is any text.
func (s *Store) journalPath(ref string) string {
	sum := sha256.Sum256([]byte(ref))
	return filepath.Join(s.journalDir(), hex.EncodeToString(sum[:16]))
}
