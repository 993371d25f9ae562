package layers

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Usage lists what is on disk. The sizes add up to what the file system says. What the store keeps for itself is listed as
// internal.
func (s *Store) Usage(ctx context.Context) ([]Usage, error) {
	done, err := s.begin()
	if err != nil {
		return nil, fmt.Errorf("measure layer store: %w", err)
	}
	defer done()
	if err := s.measureVolumes(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	var all []Usage
	for _, l := range s.layers {
		if !l.folded() {
			all = append(all, l.usage())
		}
		if l.HasUnpacked {
			all = append(all, l.copyUsage())
		}
	}
	for _, k := range s.volumes {
		for _, d := range k.dirs {
			all = append(all, d.usage())
		}
	}
	for _, c := range s.chains {
		if c.path != "" {
			all = append(all, c.usage())
		}
	}
	s.mu.Unlock()
	own, err := s.ownUsage()
	if err != nil {
		return nil, err
	}
	all = append(all, own...)
	slices.SortFunc(all, func(a, b Usage) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return all, nil
}

// Used is what layers and volumes take on disk, in bytes, and the ceiling on it; 0 is none. Volumes count as they were measured last.
func (s *Store) Used() (used, limit int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used, s.o.Limit
}

// folded says of a blob that it is listed with the directory layer that was packed into it.
func (l *layer) folded() bool { return l.Derived && len(l.aliases) > 0 }

func (l *layer) usage() Usage {
	u := Usage{
		ID: string(l.ID), Kind: l.Kind, Use: l.Labels.Use, Description: l.Labels.Description, Size: l.BlobSize + l.DirSize,
		InUse: l.pins > 0, Shared: l.holds > 0, CreatedAt: l.Created, LastUsedAt: l.LastUsed, UsageCount: l.Uses,
		Retired: l.retired(),
	}
	if u.Use == "" {
		u.Use = UseRegular
	}
	for _, p := range l.Parents {
		u.Parents = append(u.Parents, string(p))
	}
	if b := l.packed; b != nil && b.folded() && b.aliases[0] == l {
		u.Size += b.BlobSize
	}
	return u
}

func (l *layer) copyUsage() Usage {
	return Usage{
		ID: "unpacked:" + string(l.DiffID), Parents: []string{string(l.ID)}, Kind: Directory, Use: UseInternal,
		Description: "unpacked copy of " + string(l.ID), Size: l.UnpackedSize, InUse: l.pins > 0,
		CreatedAt: l.Created, LastUsedAt: l.LastUsed, UsageCount: l.Uses, Retired: l.retired(),
	}
}

func (d *volumeDir) usage() Usage {
	return Usage{
		ID: "volume:" + d.rec.ID, Kind: Directory, Use: UseCacheMount, Description: d.rec.Description, Size: d.rec.Size,
		InUse: d.users > 0, Mutable: true, CreatedAt: d.rec.Created, LastUsedAt: d.rec.LastUsed, UsageCount: d.rec.Uses,
	}
}

func (c *chain) usage() Usage {
	u := Usage{
		ID: "chain:" + c.key, Kind: Directory, Use: UseInternal, Description: "mended directories of a stack", Size: c.size,
		Retired: true,
	}
	for _, l := range c.layers {
		u.Retired = u.Retired && l.retired()
		u.Parents = append(u.Parents, string(l.ID))
		u.InUse = u.InUse || l.pins > 0
		u.CreatedAt, u.LastUsedAt = l.Created, l.LastUsed
	}
	return u
}

// ownUsage is what is on disk and is no layer or volume.
func (s *Store) ownUsage() ([]Usage, error) {
	now := s.now()
	internal := func(id, description string, size int64) Usage {
		return Usage{ID: id, Kind: Directory, Use: UseInternal, Description: description, Size: size, InUse: true, Own: true,
			CreatedAt: now, LastUsedAt: now}
	}
	own := []Usage{internal("store", "index of the layer store", s.fixedSize())}
	for _, dir := range []string{s.at.tmp(), s.at.uppers()} {
		size, err := diskUsage(dir)
		if err != nil {
			return nil, err
		}
		if size -= allocatedAt(dir); size > 0 {
			own = append(own, internal(filepath.Base(dir), "being written", size))
		}
	}
	if size := s.trash.pending(); size > 0 {
		own = append(own, internal("trash", "being deleted", size))
	}
	return own, nil
}

// fixedSize is what the files and directories take that are no part of anything: the index, and directories that hold others.
func (s *Store) fixedSize() int64 {
	size := allocatedAt(s.o.Root) + allocatedAt(s.at.index()) + allocatedAt(s.at.lock())
	for _, d := range s.at.all() {
		size += allocatedAt(d)
	}
	for _, pattern := range []string{
		filepath.Join(s.at.blobs(), "*"), filepath.Join(s.at.blobs(), "*", "*"), filepath.Join(s.at.mounts(), "*"),
	} {
		paths, _ := filepath.Glob(pattern) // the pattern is well-formed
		for _, p := range paths {
			if info, err := os.Lstat(p); err == nil && info.IsDir() && !strings.HasSuffix(p, blobSuffix) {
				size += allocated(info)
			}
		}
	}
	return size
}

// measureVolumes measures what was written to since it was measured last.
func (s *Store) measureVolumes(ctx context.Context) error {
	s.mu.Lock()
	var todo []*volumeDir
	for _, k := range s.volumes {
		for _, d := range k.dirs {
			if d.stale || d.users > 0 {
				todo = append(todo, d)
			}
		}
	}
	s.mu.Unlock()
	for _, d := range todo {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		select {
		case <-d.ready:
		default:
			continue // still being filled, under another name
		}
		s.mu.Lock()
		d.stale = d.users > 0 // what is written from here on counts next time
		s.mu.Unlock()
		size, err := diskUsage(s.at.volume(d.rec.ID))
		if err != nil {
			return err
		}
		s.mu.Lock()
		if !d.gone {
			s.used += size - d.rec.Size
			d.rec.Size = size
			s.saveVolume(d, false)
		}
		s.mu.Unlock()
	}
	return nil
}
