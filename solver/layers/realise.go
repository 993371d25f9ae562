package layers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/flight"
	"github.com/slipwaybuild/slipway/solver/layers/blob"
	"github.com/slipwaybuild/slipway/solver/layers/compose"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"golang.org/x/sys/unix"
)

func (s *Store) openMount(d digest.Digest) (int, error) { return compose.Erofs(s.at.blob(d)) }

func closeMount(fd int) error { return unix.Close(fd) }

// probe finds out how layers can be realised here, and says it.
func (s *Store) probe(ctx context.Context) error {
	dir := filepath.Join(s.at.tmp(), newName())
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	var images [2]string
	for i := range images {
		images[i] = filepath.Join(dir, fmt.Sprintf("image%d", i))
		if err := probeImage(ctx, images[i], i); err != nil {
			return errors.Join(fmt.Errorf("make image to try mounting: %w", err), s.trash.add(dir, 0))
		}
	}
	caps, err := compose.Probe(dir, images)
	if terr := s.trash.add(dir, 0); terr != nil {
		return errors.Join(err, terr)
	}
	if err != nil {
		// Layers can be stored, read and packed without mounts; only steps that run something cannot.
		s.log.Warn("layers cannot be mounted here", "error", err)
		caps.Erofs = err
	}
	if s.o.Realisation == Erofs && caps.Erofs != nil {
		return fmt.Errorf("layers cannot be mounted as EROFS here: %w", caps.Erofs)
	}
	s.caps, s.erofs = caps, caps.Erofs == nil && s.o.Realisation != Unpacked
	s.log.Info("layer store is open", "root", s.o.Root, "realisation", s.Realisation(), "erofs", reason(caps.Erofs),
		"legacyMount", caps.Legacy, "index", caps.Index, "volatile", caps.Volatile, "userxattr", caps.Userxattr)
	return nil
}

func reason(err error) string {
	if err == nil {
		return "works"
	}
	return err.Error()
}

// probeImage makes a small blob that is unlike the one of another n.
func probeImage(ctx context.Context, path string, n int) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	d := fstree.NewDelta(fstree.Empty())
	e := fstree.Entry{Path: fmt.Sprintf("probe%d", n), Mode: unix.S_IFREG | 0o644, Size: 1}
	if err := d.Put(ctx, e, fstree.Bytes([]byte("x"))); err != nil {
		return err
	}
	_, err = blob.Pack(ctx, d.Changes(), f)
	return err
}

// unpack returns the directory that stands for the blob of l, which must be held, making it if need be, once however many ask.
func (s *Store) unpack(ctx context.Context, l *layer) (string, error) {
	path := s.at.unpackedCopy(l.DiffID)
	for {
		s.mu.Lock()
		have := l.HasUnpacked
		s.mu.Unlock()
		if have {
			return path, nil
		}
		err := once(ctx, s.spreads, l.DiffID, nil, func(c *flight.Call) error { return s.spread(c.Context(), l.ID) })
		if err != nil {
			return "", fmt.Errorf("unpack layer %s: %w", l.ID, err)
		}
	}
}

// spread unpacks one blob. It runs once for all who wait, so it takes a hold of its own.
func (s *Store) spread(ctx context.Context, id ID) error {
	r, err := s.pin([]ID{id})
	if err != nil {
		return err
	}
	defer func() { _ = r.Release() }() // released once, here
	l := r.layers[0]
	tree, err := s.LayerTree(ctx, r, 0)
	if err != nil {
		return err
	}
	res := s.newReservation()
	defer res.end()
	s.mu.Lock()
	guess := l.BlobSize
	s.mu.Unlock()
	if err := res.grow(ctx, guess); err != nil {
		return err
	}
	tmp := filepath.Join(s.at.tmp(), newName())
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return err
	}
	size, err := s.unpackTo(ctx, tree, tmp)
	if err == nil {
		err = res.grow(ctx, max(0, size-guess))
	}
	if err != nil {
		return errors.Join(err, s.trash.add(tmp, size))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.gone || l.HasUnpacked {
		return s.trash.add(tmp, size)
	}
	if err := os.Rename(tmp, s.at.unpackedCopy(l.DiffID)); err != nil {
		return errors.Join(err, s.trash.add(tmp, size))
	}
	l.HasUnpacked, l.UnpackedSize = true, size
	s.used += size
	l.Boot = s.boot
	s.unsynced[l] = struct{}{}
	s.save(l, true)
	return nil
}

func (s *Store) unpackTo(ctx context.Context, tree fstree.Tree, dir string) (int64, error) {
	if err := blob.Unpack(ctx, tree, dir, blob.UnpackOptions{Userxattr: s.caps.Userxattr}); err != nil {
		return 0, err
	}
	return diskUsage(dir)
}
