package layers

import (
	"cmp"
	"context"
	"fmt"
	"slices"
)

// maxRemotes is how many places are remembered for one layer.
const maxRemotes = 8

// AddRemote takes note of layers whose bytes are elsewhere and returns a hold on them, in the given order. Where the diffID is
// known already, that layer is used, and the new place is remembered with it. That a blob has the diffID it is said to have is
// only known once it was fetched.
func (s *Store) AddRemote(ctx context.Context, blobs ...RemoteBlob) (*Ref, error) {
	for _, b := range blobs {
		if err := b.DiffID.Validate(); err != nil {
			return nil, fmt.Errorf("remote layer of %s: diffID %q: %w", b.Ref, b.DiffID, err)
		}
		if err := b.Descriptor.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("remote layer of %s: digest %q: %w", b.Ref, b.Descriptor.Digest, err)
		}
		if b.Descriptor.Size < 0 {
			return nil, fmt.Errorf("remote layer of %s: size %d", b.Ref, b.Descriptor.Size)
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	now := s.now()
	stack := make([]*layer, len(blobs))
	for i, b := range blobs {
		l := s.layers[ID(b.DiffID)]
		if l == nil {
			labels := Labels{Description: cmp.Or(b.Description, "pulled from "+b.Ref), Use: UseRegular}
			l = &layer{record: record{ID: ID(b.DiffID), Kind: Remote, DiffID: b.DiffID, Labels: labels, Created: now}}
			if !b.CreatedAt.IsZero() {
				l.Created = b.CreatedAt
			}
			for _, below := range stack[:i] {
				l.Parents = append(l.Parents, below.ID)
			}
			s.layers[l.ID] = l
		}
		l.Derived = false
		delete(s.lostAt, placeOf(b))
		l.addRemote(b)
		s.use(l, now)
		stack[i] = l
	}
	s.journal.kick()
	return s.hold(stack, 1), nil
}

// NoteRemote remembers a place of layers that the store has, and knows nothing of others. It takes no hold.
func (s *Store) NoteRemote(blobs ...RemoteBlob) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	for _, b := range blobs {
		l := s.layers[ID(b.DiffID)]
		if l == nil || b.Descriptor.Digest.Validate() != nil || b.Descriptor.Size < 0 || l.knows(b) {
			continue
		}
		l.addRemote(b)
		s.save(l, false)
	}
}

// knows tells whether a place is remembered as the first to ask.
func (l *layer) knows(b RemoteBlob) bool {
	return len(l.Remotes) > 0 && l.Remotes[0].same(b)
}

func (b RemoteBlob) same(o RemoteBlob) bool {
	return o.Ref == b.Ref && o.Descriptor.Digest == b.Descriptor.Digest
}

func (l *layer) addRemote(b RemoteBlob) {
	l.Remotes = slices.Insert(slices.DeleteFunc(slices.Clone(l.Remotes), b.same), 0, b)
	if len(l.Remotes) > maxRemotes {
		l.Remotes = l.Remotes[:maxRemotes]
	}
}
