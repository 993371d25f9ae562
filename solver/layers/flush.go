package layers

import "context"

// Flush writes to the index what a crash should not lose: the layers and volumes that were made or removed. Without it they are
// written a moment later. It does not sync the layers' own bytes, which only a power failure could take; see doc.go.
func (s *Store) Flush(ctx context.Context) error {
	if !s.journal.isUrgent() {
		return nil
	}
	return s.journal.flush(ctx)
}
