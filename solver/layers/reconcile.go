package layers

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	digest "github.com/opencontainers/go-digest"
)

// reconcile makes the index and the disk agree after loading: entries whose bytes are gone are dropped, bytes without an entry
// are thrown away.
func (s *Store) reconcile() error {
	blobs, err := s.listBlobs()
	if err != nil {
		return err
	}
	dirs, err := listNames(s.at.dirs())
	if err != nil {
		return err
	}
	copies, err := listNames(s.at.unpacked())
	if err != nil {
		return err
	}
	volumes, err := listNames(s.at.volumes())
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.layers {
		s.checkParts(l, blobs, dirs, copies)
	}
	for _, l := range s.layers {
		s.used += l.size()
		if l.Boot != "" {
			s.unsynced[l] = struct{}{}
		}
	}
	for _, l := range s.layers {
		s.checkWhole(l)
	}
	for _, k := range s.volumes {
		for _, d := range k.dirs {
			delete(volumes, d.rec.ID)
		}
	}
	return s.discardStrays(blobs, map[string]map[string]bool{
		s.at.dirs(): dirs, s.at.unpacked(): copies, s.at.volumes(): volumes,
	})
}

// checkParts takes out of a record what is not there, and out of the lists what is. A part that was written in an earlier boot
// and never synced may have been torn by a power cut.
func (s *Store) checkParts(l *layer, blobs map[digest.Digest]string, dirs, copies map[string]bool) {
	before := l.size()
	torn := l.Boot != "" && l.Boot != s.boot
	if l.HasBlob {
		if _, ok := blobs[l.DiffID]; ok && !torn {
			delete(blobs, l.DiffID)
		} else {
			l.HasBlob, l.BlobSize = false, 0
		}
	}
	if l.HasDir {
		if name := filepath.Base(s.at.dir(l.ID)); dirs[name] && !torn {
			delete(dirs, name)
		} else {
			l.HasDir, l.DirSize = false, 0
		}
	}
	if l.HasUnpacked {
		if name := filepath.Base(s.at.unpackedCopy(l.DiffID)); copies[name] && l.HasBlob && !torn {
			delete(copies, name)
		} else {
			l.HasUnpacked, l.UnpackedSize = false, 0
		}
	}
	if l.size() != before {
		s.save(l, true)
	}
}

// checkWhole drops a layer of which nothing is left. A blob that can be fetched again becomes remote.
func (s *Store) checkWhole(l *layer) {
	if l.Kind == Remote || l.Empty || l.HasDir || l.source() != nil {
		return
	}
	if l.Kind == Blob && len(l.Remotes) > 0 {
		l.Kind, l.Boot = Remote, ""
		s.save(l, true)
		return
	}
	s.log.Warn("layer is gone from disk", "layer", l.ID)
	s.forget(l)
}

// settleAll does what [Store.settle] does, for all layers.
func (s *Store) settleAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.layers {
		s.settle(l)
	}
}

func (s *Store) discardStrays(blobs map[digest.Digest]string, names map[string]map[string]bool) error {
	var errs []error
	for _, path := range blobs {
		errs = append(errs, s.discard(path))
	}
	for dir, strays := range names {
		for name := range strays {
			errs = append(errs, s.discard(filepath.Join(dir, name)))
		}
	}
	return errors.Join(errs...)
}

// listBlobs finds the blob files by diffID. What has another name is listed under a digest that no layer has.
func (s *Store) listBlobs() (map[digest.Digest]string, error) {
	found := map[digest.Digest]string{}
	err := filepath.WalkDir(s.at.blobs(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		algorithm := filepath.Base(filepath.Dir(filepath.Dir(path)))
		hex := strings.TrimSuffix(d.Name(), blobSuffix)
		found[digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)] = path
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list blobs: %w", err)
	}
	return found, nil
}

func listNames(dir string) (map[string]bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool, len(entries))
	for _, e := range entries {
		names[e.Name()] = true
	}
	return names, nil
}
