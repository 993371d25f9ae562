package history

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	controlapi "github.com/moby/buildkit/api/services/control"
)

// A mark is a file that holds what is known of a build that runs. It is there for the case that the daemon dies, which the page cache
// survives, so no build waits for the disk to begin; what the host's end leaves of it may be nothing.

func (s *Store) markDir() string { return filepath.Join(s.o.Root, "running") }

func (s *Store) markPath(ref string) string {
	return filepath.Join(s.markDir(), filepath.Base(s.journalPath(ref)))
}

func (s *Store) mark(r *controlapi.BuildHistoryRecord) error {
	b, err := r.MarshalVT()
	if err == nil {
		err = os.WriteFile(s.markPath(r.Ref), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("remember that build %s runs: %w", r.Ref, err)
	}
	return nil
}

func (s *Store) unmark(ref string) error {
	if err := os.Remove(s.markPath(ref)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget that build %s ran: %w", ref, err)
	}
	return nil
}

// marked returns the builds that ran when the daemon died. What cannot be read is removed.
func (s *Store) marked() (list []*controlapi.BuildHistoryRecord, err error) {
	dir, err := os.ReadDir(s.markDir())
	if err != nil {
		return nil, err
	}
	for _, f := range dir {
		path := filepath.Join(s.markDir(), f.Name())
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		r := &controlapi.BuildHistoryRecord{}
		if err := r.UnmarshalVT(b); err == nil && r.CreatedAt != nil && s.markPath(r.Ref) == path {
			list = append(list, r)
			continue
		}
		s.log.Warn("a build ran when the daemon died of which nothing can be read", "file", path)
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	return list, nil
}
