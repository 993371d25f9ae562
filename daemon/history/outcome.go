package history

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// outcomeType is the media type of what tells what a build made. Clients are not told of it: it is the engine's own.
const outcomeType = "application/vnd.slipway.outcome.v1+json"

// minPrefix is how much of a ref is enough to name a build by, in bytes.
const minPrefix = 4

// Keep stores what the engine needs to export the result of the build again, for as long as the build is remembered. It is called at
// most once, before the build ends.
func (b *Build) Keep(ctx context.Context, outcome []byte) error {
	if b.start.Unrecorded {
		return nil
	}
	d, err := b.store.blobs.writeBytes(ctx, outcomeType, outcome)
	if err != nil {
		return fmt.Errorf("keep what build %s made: %w", b.start.Ref, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.blobs, b.outcome = append(b.blobs, d.Digest), d.Digest
	return nil
}

// Find returns the whole ref of a build that ended, from its ref or from a beginning that no other has. ErrNotFound if there is none.
func (s *Store) Find(name string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended[name] != nil {
		return name, nil
	}
	var found []string
	for ref := range s.ended {
		if len(name) >= minPrefix && strings.HasPrefix(ref, name) {
			found = append(found, ref)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return "", fmt.Errorf("%w: %s is the beginning of %d ids", ErrNotFound, name, len(found))
	case s.running[name] != nil:
		return "", fmt.Errorf("%w: %s", ErrRunning, name)
	}
	return "", fmt.Errorf("%w: %s", ErrNotFound, name)
}

// Outcome returns what [Build.Keep] was given; ErrNotFound if the build is not remembered, nil if it kept nothing.
func (s *Store) Outcome(ctx context.Context, ref string) ([]byte, error) {
	s.mu.Lock()
	known := s.ended[ref] != nil
	s.mu.Unlock()
	if !known {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, ref)
	}
	d, err := s.db.outcome(ref)
	if err != nil || d == "" {
		return nil, err
	}
	info, err := s.blobs.store.Info(ctx, digest.Digest(d))
	if err != nil {
		return nil, fmt.Errorf("read what build %s made: %w", ref, err)
	}
	b, err := content.ReadBlob(ctx, s.blobs.store, ocispecs.Descriptor{Digest: info.Digest, Size: info.Size})
	if err != nil {
		return nil, fmt.Errorf("read what build %s made: %w", ref, err)
	}
	return b, nil
}
