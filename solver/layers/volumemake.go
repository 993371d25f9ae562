package layers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/slipwaybuild/slipway/solver/layers/blob"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"golang.org/x/sys/unix"
)

// makeVolume makes the directory of a new volume and says so to all who wait for it.
func (s *Store) makeVolume(ctx context.Context, d *volumeDir, o VolumeOptions) {
	defer close(d.ready)
	size, err := s.fillVolume(ctx, d.rec.ID, o)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		d.err = err
		return
	}
	d.rec.Size = size
	s.used += size
	s.saveVolume(d, true)
}

func (s *Store) fillVolume(ctx context.Context, id string, o VolumeOptions) (size int64, err error) {
	tmp := filepath.Join(s.at.tmp(), id)
	dir := filepath.Join(tmp, "fs")
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.trash.add(tmp, 0))
		}
	}()
	if err := s.beginVolume(ctx, dir, o); err != nil {
		return 0, err
	}
	if err := os.Lchown(dir, int(o.UID), int(o.GID)); err != nil {
		return 0, err
	}
	if err := unix.Chmod(dir, o.Mode&0o7777); err != nil {
		return 0, err
	}
	if size, err = diskUsage(tmp); err != nil {
		return 0, err
	}
	return size, os.Rename(tmp, s.at.volume(id))
}

// beginVolume fills in what a new volume holds at first.
func (s *Store) beginVolume(ctx context.Context, dir string, o VolumeOptions) (err error) {
	if o.Begin != nil {
		ref, err := o.Begin(ctx)
		if err != nil {
			return err
		}
		if ref != nil {
			o.Base, o.BasePath = ref, ""
			defer func() { err = errors.Join(err, s.Discard(ref)) }()
			return s.fillFromBase(ctx, dir, o)
		}
	}
	if o.Base == nil {
		return nil
	}
	return s.fillFromBase(ctx, dir, o)
}

// fillFromBase copies a directory of a stack. A missing one is an empty one.
func (s *Store) fillFromBase(ctx context.Context, dir string, o VolumeOptions) error {
	tree, err := s.Tree(ctx, o.Base)
	if err != nil {
		return err
	}
	path, err := fstree.Resolve(ctx, tree, o.BasePath, true)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find %s in the base: %w", o.BasePath, err)
	}
	return blob.Unpack(ctx, fstree.Sub(tree, path), dir, blob.UnpackOptions{})
}

// saveVolume is called under mu.
func (s *Store) saveVolume(d *volumeDir, urgent bool) {
	select {
	case <-d.ready:
	default:
		if !urgent {
			return // not there yet
		}
	}
	if !d.gone {
		s.journal.put(bucketVolumes, d.rec.ID, mustJSON(d.rec), urgent)
	}
}

// forgetVolume takes away a volume that nobody uses. It is called under mu.
func (s *Store) forgetVolume(d *volumeDir) {
	d.gone = true
	k := s.volumes[d.rec.Key]
	k.dirs = slices.DeleteFunc(k.dirs, func(o *volumeDir) bool { return o == d })
	if len(k.dirs) == 0 && len(k.waiting) == 0 {
		delete(s.volumes, d.rec.Key)
	}
	s.used -= d.rec.Size
	s.journal.put(bucketVolumes, d.rec.ID, nil, true)
	if err := s.trash.add(s.at.volume(d.rec.ID), d.rec.Size); err != nil {
		s.log.Warn("cannot remove volume", "key", d.rec.Key, "error", err)
	}
}

// loadVolume restores a volume from the index.
func (s *Store) loadVolume(id string, rec volumeRecord) {
	if _, err := os.Lstat(s.at.volumeFS(id)); err != nil || rec.ID != id {
		s.log.Warn("volume is gone from disk", "key", rec.Key)
		s.journal.put(bucketVolumes, id, nil, true)
		return
	}
	d := &volumeDir{rec: rec, stale: true, ready: make(chan struct{})}
	close(d.ready)
	k := s.volumes[rec.Key]
	if k == nil {
		k = &volumeKey{}
		s.volumes[rec.Key] = k
	}
	k.dirs = append(k.dirs, d)
	slices.SortFunc(k.dirs, func(a, b *volumeDir) int { return a.rec.Created.Compare(b.rec.Created) })
	s.used += rec.Size
}
