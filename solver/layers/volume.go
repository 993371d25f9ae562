package layers

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Sharing says what happens when two steps want one volume at a time.
type Sharing string

// The ways of sharing a volume.
const (
	Shared  Sharing = "shared"  // both write
	Private Sharing = "private" // the second gets one of its own
	Locked  Sharing = "locked"  // the second waits
)

// VolumeOptions names a volume and says how it begins.
type VolumeOptions struct {
	Key     string
	Sharing Sharing // "" is Shared
	// Base is what a new volume holds at first; nil is nothing. It must be local, and stays the caller's.
	Base *Ref
	// BasePath is the directory of Base to begin with, "" its root.
	BasePath string
	// Mode, UID and GID are of a new volume's directory.
	Mode        uint32
	UID, GID    uint32
	Description string
	// Begin is asked, if it is set, when a volume is made: it returns what the volume holds at first in place of Base, which the store
	// then discards; nil for Base after all.
	Begin func(ctx context.Context) (*Ref, error)

	existing bool // make none
}

// Volume is a hold on a directory that outlives steps: a cache mount.
type Volume struct {
	s    *Store
	dir  *volumeDir
	site callSite
	over bool // guarded by s.mu
}

// volumeRecord is what the index keeps of a volume.
type volumeRecord struct {
	ID          string    `json:"id"`
	Key         string    `json:"key"`
	Description string    `json:"description,omitempty"`
	Size        int64     `json:"size"`
	Created     time.Time `json:"created"`
	LastUsed    time.Time `json:"lastUsed"`
	Uses        int       `json:"uses"`
}

// volumeDir is one volume. It is guarded by Store.mu.
type volumeDir struct {
	rec     volumeRecord
	users   int
	sharing Sharing // of the users
	stale   bool    // written to since it was measured
	retired bool    // not for new users; forgotten with the last one
	gone    bool

	ready chan struct{} // closed once it is made
	err   error         // that it could not be made; set under mu before ready is closed
}

// volumeKey is all volumes of one key, oldest first, and those who wait for one, in order.
type volumeKey struct {
	dirs    []*volumeDir
	waiting []*volumeWaiter
}

type volumeWaiter struct {
	sharing Sharing
	granted chan *volumeDir // of one
}

// Volume opens a volume, making it if need be. A locked one is waited for, in the order of asking; so is a shared one while
// somebody has it locked. Who wants several volumes at a time must ask for them in the order of their keys, or two may wait for
// each other.
func (s *Store) Volume(ctx context.Context, o VolumeOptions) (*Volume, error) {
	v, err := s.openVolume(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("open volume %q: %w", o.Key, err)
	}
	return v, nil
}

func (s *Store) openVolume(ctx context.Context, o VolumeOptions) (*Volume, error) {
	switch o.Sharing {
	case "":
		o.Sharing = Shared
	case Shared, Private, Locked:
	default:
		return nil, fmt.Errorf("unknown sharing %q", o.Sharing)
	}
	done, err := s.begin()
	if err != nil {
		return nil, err
	}
	defer done()
	for {
		d, fresh, err := s.enter(ctx, o)
		if err != nil {
			return nil, err
		}
		if fresh {
			s.makeVolume(ctx, d, o)
		}
		select {
		case <-d.ready:
			err = d.err
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if err == nil {
			v := &Volume{s: s, dir: d, site: here(2)}
			s.mu.Lock()
			s.vols[v] = struct{}{}
			s.mu.Unlock()
			return v, nil
		}
		s.mu.Lock()
		s.leaveVolume(d)
		s.mu.Unlock()
		if fresh || ctx.Err() != nil {
			return nil, err
		}
		// Whoever was making it failed or left. That is their affair; we try ourselves.
	}
}

// enter finds a volume to use, begins a new one (fresh), or waits for its turn.
func (s *Store) enter(ctx context.Context, o VolumeOptions) (d *volumeDir, fresh bool, err error) {
	for {
		d, fresh, wait := s.claimVolume(o)
		if d == nil && wait == nil {
			return nil, false, ErrNotFound
		}
		if wait != nil {
			if d, err = s.awaitVolume(ctx, o.Key, wait); err != nil {
				return nil, false, err
			}
		}
		if d != nil {
			return d, fresh, nil
		}
	}
}

// Path is its directory.
func (v *Volume) Path() string { return v.s.at.volumeFS(v.dir.rec.ID) }

// Release gives it back. A second call returns an error that is [ErrReleased].
func (v *Volume) Release() error {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.over {
		return fmt.Errorf("release volume %q: %w", v.dir.rec.Key, ErrReleased)
	}
	v.over = true
	delete(s.vols, v)
	v.dir.stale = true
	s.leaveVolume(v.dir)
	return nil
}

// claimVolume finds a volume to use, begins a new one, or queues. It returns nothing if there is none and none is to be made.
func (s *Store) claimVolume(o VolumeOptions) (d *volumeDir, fresh bool, wait *volumeWaiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.volumes[o.Key]
	if k == nil {
		k = &volumeKey{}
		s.volumes[o.Key] = k
	}
	d, queue := k.choose(o.Sharing)
	switch {
	case queue || o.Sharing != Private && len(k.waiting) > 0:
		wait = &volumeWaiter{sharing: o.Sharing, granted: make(chan *volumeDir, 1)}
		k.waiting = append(k.waiting, wait)
		return nil, false, wait
	case d == nil && o.existing:
		if len(k.dirs) == 0 {
			delete(s.volumes, o.Key)
		}
		return nil, false, nil
	case d == nil:
		fresh = true
		now := s.now()
		d = &volumeDir{ready: make(chan struct{}), rec: volumeRecord{ID: newName(), Key: o.Key, Description: o.Description, Created: now}}
		k.dirs = append(k.dirs, d)
	}
	s.enterVolume(d, o.Sharing)
	return d, fresh, nil
}

// choose picks a volume for a further user: nil if a new one is to be made, or if queue says to wait.
func (k *volumeKey) choose(sharing Sharing) (d *volumeDir, queue bool) {
	for _, d := range k.dirs {
		switch {
		case d.err != nil || d.retired:
			// It could not be made or is not wanted any more, and goes with its last user.
		case d.users == 0:
			return d, false
		case d.sharing == Private || sharing == Private:
			// Left to whoever has it; the next one is tried.
		case d.sharing == Shared && sharing == Shared:
			return d, false
		default:
			return nil, true
		}
	}
	return nil, false
}

// enterVolume and leaveVolume are called under mu.

func (s *Store) enterVolume(d *volumeDir, sharing Sharing) {
	d.users++
	d.sharing = sharing
	d.rec.Uses++
	d.rec.LastUsed = s.now()
	s.saveVolume(d, false)
}

func (s *Store) leaveVolume(d *volumeDir) {
	d.users--
	k := s.volumes[d.rec.Key]
	if d.users == 0 {
		d.rec.LastUsed = s.now()
		if d.err != nil || d.retired {
			s.forgetVolume(d)
		} else {
			s.saveVolume(d, false)
		}
	}
	if k == nil {
		return
	}
	for len(k.waiting) > 0 {
		w := k.waiting[0]
		next, queue := k.choose(w.sharing)
		if queue {
			return
		}
		k.waiting = k.waiting[1:]
		if next == nil {
			// What was waited for is gone: this one makes a new one, and leaving that lets in those who come after.
			close(w.granted)
			return
		}
		s.enterVolume(next, w.sharing)
		w.granted <- next
	}
}

// awaitVolume waits for a place in the queue to be granted.
func (s *Store) awaitVolume(ctx context.Context, key string, w *volumeWaiter) (*volumeDir, error) {
	var err error
	select {
	case d := <-w.granted:
		return d, nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-s.ctx.Done():
		err = ErrClosed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case d := <-w.granted:
		if d != nil {
			s.leaveVolume(d)
		}
	default:
		if k := s.volumes[key]; k != nil {
			k.waiting = slices.DeleteFunc(k.waiting, func(o *volumeWaiter) bool { return o == w })
		}
	}
	return nil, err
}
