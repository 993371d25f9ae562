package layers

import (
	"errors"
	"slices"
)

// forget takes l out of the index and its bytes out of their places, which is all of collecting but the deleting. It is called
// under mu, for a layer that is free or of which nothing is left.
func (s *Store) forget(l *layer) {
	if l.gone {
		return
	}
	l.gone = true
	delete(s.layers, l.ID)
	delete(s.unsynced, l)
	if l.Kind != Lent {
		s.journal.put(bucketLayers, string(l.ID), nil, true)
	}
	for _, c := range l.chains {
		s.dropChain(c)
	}
	s.dropDir(l)
	s.dropBlob(l)
	if blob := l.packed; blob != nil {
		blob.dropAlias(l)
		l.packed = nil
		if blob.Derived && blob.free() {
			s.forget(blob)
		}
	}
	for _, dir := range slices.Clone(l.aliases) {
		dir.packed = nil
		if !dir.HasDir && !dir.Empty && dir.Kind != Lent {
			s.forget(dir)
			continue
		}
		dir.DiffID = ""
		s.save(dir, true)
	}
	l.aliases = nil
}

// dropDir and dropBlob are called under mu. What cannot be thrown away is found at the next start.

func (s *Store) dropDir(l *layer) {
	if !l.HasDir {
		return
	}
	if err := s.trash.add(s.at.dir(l.ID), l.DirSize); err != nil {
		s.log.Warn("cannot remove layer directory", "layer", l.ID, "error", err)
	}
	s.used -= l.DirSize
	l.HasDir, l.DirSize = false, 0
}

func (s *Store) dropBlob(l *layer) {
	if l.HasUnpacked {
		if err := s.trash.add(s.at.unpackedCopy(l.DiffID), l.UnpackedSize); err != nil {
			s.log.Warn("cannot remove unpacked copy", "layer", l.ID, "error", err)
		}
		s.used -= l.UnpackedSize
		l.HasUnpacked, l.UnpackedSize = false, 0
	}
	if !l.HasBlob {
		return
	}
	if err := s.trash.add(s.at.blob(l.DiffID), l.BlobSize); err != nil {
		s.log.Warn("cannot remove blob", "layer", l.ID, "error", err)
	}
	// Unmounting may take long, and we are under mu. Should the same blob come back before, what is open shows it as well.
	diffID := l.DiffID
	s.trash.later(func() error { return errors.Join(s.mounts.drop(diffID), s.views.drop(diffID)) })
	s.used -= l.BlobSize
	l.HasBlob, l.BlobSize = false, 0
}

// settle does what had to wait until nobody uses the bytes of l: a directory that was packed gives way to its blob, unless
// blobs have to be unpacked again to be mounted. A lent layer goes. It is called under mu whenever a hold on l ends.
func (s *Store) settle(l *layer) {
	if l.Kind == Lent && l.free() {
		s.forget(l)
		return
	}
	if l.gone || l.pins > 0 || s.closed || !s.erofs {
		return
	}
	if l.HasDir && l.packed != nil && l.packed.HasBlob {
		s.dropDir(l)
		s.save(l, true)
	}
}
