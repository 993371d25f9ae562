package layers

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/slipwaybuild/slipway/solver/layers/blob"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// baseSuffix ends the keys of volumes that began as a copy of something.
var baseSuffix = regexp.MustCompile(`^:[0-9a-f]{64}$`)

// VolumeID is what a volume's key was made of besides what the volume began with.
func VolumeID(key string) string {
	if i := strings.LastIndexByte(key, ':'); i >= 0 && baseSuffix.MatchString(key[i:]) {
		return key[:i]
	}
	return key
}

// PackVolume makes a layer of what a volume holds: of those with the key id, or with that id over a base, the one that was used last. It
// waits until nobody uses the volume, and nobody enters it meanwhile. The caller ends with [Store.Discard]. The error is
// [ErrNotFound] if there is no volume, or nothing in it.
func (s *Store) PackVolume(ctx context.Context, id string) (_ *Ref, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("pack volume %q: %w", id, err)
		}
	}()
	key, ok := s.latestVolume(id)
	if !ok {
		return nil, ErrNotFound
	}
	v, err := s.Volume(ctx, VolumeOptions{Key: key, Sharing: Locked, existing: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, v.Release()) }()
	tree := blob.DirTree(v.Path())
	names, err := tree.ReadDir(ctx, "")
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, ErrNotFound
	}
	return s.Pack(ctx, fstree.NewSource(tree), packedVolume(id))
}

// VolumeState changes whenever somebody enters the volume that [Store.PackVolume] would pack, packing included; "" if there is none. While
// it stays, so does the content, unless somebody is in there now: then the second value is false.
func (s *Store) VolumeState(id string) (state string, quiet bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, _ := s.latest(id)
	if d == nil {
		return "", false
	}
	return fmt.Sprintf("%s %d", d.rec.ID, d.rec.Uses), d.users == 0
}

// packedVolume labels layers that are there only while a volume travels.
func packedVolume(id string) ImportOptions {
	return ImportOptions{Labels: Labels{Use: UseCacheMount, Description: "content of the cache mount " + id}}
}

// latestVolume finds the key of the volume with an id that was used last.
func (s *Store) latestVolume(id string) (key string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, key := s.latest(id)
	return key, d != nil
}

// latest is called under mu.
func (s *Store) latest(id string) (latest *volumeDir, key string) {
	for k, all := range s.volumes {
		if VolumeID(k) != id {
			continue
		}
		for _, d := range all.dirs {
			if d.err == nil && !d.retired && (latest == nil || d.rec.LastUsed.After(latest.rec.LastUsed)) {
				latest, key = d, k
			}
		}
	}
	return latest, key
}

// Discard gives r back and removes those of its layers that were made by [Store.PackVolume], or brought with the like labels, unless
// somebody else has them.
func (s *Store) Discard(r *Ref) error {
	held := r.layers
	err := r.Release()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range held {
		if l.Labels.Use == UseCacheMount && l.free() && !l.gone && !s.closed {
			s.forget(l)
		}
	}
	return err
}
