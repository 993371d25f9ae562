package layers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/flight"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

func newStore(o Options) (*Store, error) {
	if o.Root == "" {
		return nil, errors.New("open layer store: no root given")
	}
	root, err := filepath.Abs(o.Root)
	if err != nil {
		return nil, fmt.Errorf("open layer store: %w", err)
	}
	switch o.Realisation {
	case "", Erofs, Unpacked:
	default:
		return nil, fmt.Errorf("open layer store: unknown realisation %q; there are %s and %s", o.Realisation, Erofs, Unpacked)
	}
	o.Root = root
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxLayer <= 0 {
		o.MaxLayer = 1 << 40
	}
	if o.MaxRatio <= 0 {
		o.MaxRatio = 200
	}
	s := &Store{
		o: o, at: layout(root), log: o.Logger, now: time.Now, boot: bootID(),
		slots:  make(chan struct{}, transfers),
		layers: map[ID]*layer{}, holds: map[string][]*layer{}, volumes: map[string]*volumeKey{}, chains: map[string]*chain{},
		refs: map[*Ref]struct{}{}, uppers: map[*Upper]struct{}{}, rootfs: map[*Rootfs]struct{}{}, vols: map[*Volume]struct{}{},
		unsynced: map[*layer]struct{}{},
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	s.ctx, s.cancel = ctx, func() { cancel(ErrClosed) }
	s.fetches = flight.New[digest.Digest](ctx, flight.Options[struct{}]{})
	s.packs = flight.New[ID](ctx, flight.Options[struct{}]{})
	s.spreads = flight.New[digest.Digest](ctx, flight.Options[struct{}]{})
	s.mounts = newHandles(idleMounts, s.openMount, closeMount)
	s.views = newHandles(idleViews, s.openView, closeView)
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	if err := s.at.make(); err != nil {
		return err
	}
	var err error
	if s.lock, err = lockFile(s.at.lock()); err != nil {
		return err
	}
	if err := unmountBelow(s.at.mounts(), s.at.tmp()); err != nil {
		return err
	}
	s.trash = newTrash(s.at.trash(), s.log)
	if err := s.sweepVolatile(); err != nil {
		return err
	}
	// The lock above keeps others out, so there is no wait here.
	s.db, err = bolt.Open(s.at.index(), 0o600, &bolt.Options{Timeout: time.Second, NoFreelistSync: true, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return fmt.Errorf("open index: %w", err)
	}
	s.journal = newJournal(s.db, s.log)
	if err := s.load(); err != nil {
		return err
	}
	if err := s.reconcile(); err != nil {
		return err
	}
	if err := s.probe(ctx); err != nil {
		return err
	}
	s.settleAll()
	return nil
}

// abandon closes what open had got to.
func (s *Store) abandon() error {
	s.cancel()
	return s.shutdown()
}

func (s *Store) shutdown() error {
	var errs []error
	errs = append(errs, s.endMounts(), s.mounts.closeIdle(), s.views.closeIdle())
	if s.trash != nil {
		s.trash.close()
	}
	if s.journal != nil {
		errs = append(errs, s.settleDisk(), s.journal.close())
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// lockFile keeps a second process off the root. The lock ends with the process.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w by another process", ErrInUse)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// unmountBelow ends mounts that a killed process left behind.
func unmountBelow(roots ...string) error {
	for i, r := range roots {
		// The mount table has real paths.
		if real, err := filepath.EvalSymlinks(r); err == nil {
			roots[i] = real
		}
	}
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		for _, r := range roots {
			if strings.HasPrefix(m.Mountpoint, r+"/") {
				return false, false
			}
		}
		return true, false
	})
	if err != nil {
		return fmt.Errorf("look for stale mounts: %w", err)
	}
	sort.Slice(mounts, func(i, j int) bool { return len(mounts[i].Mountpoint) > len(mounts[j].Mountpoint) })
	for _, m := range mounts {
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("end stale mount %s: %w", m.Mountpoint, err)
		}
	}
	return nil
}

// sweepVolatile throws away what is worth nothing after a restart.
func (s *Store) sweepVolatile() error {
	for _, d := range s.at.volatile() {
		if d == s.at.trash() {
			continue
		}
		entries, err := os.ReadDir(d)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := s.discard(filepath.Join(d, e.Name())); err != nil {
				return err
			}
		}
	}
	return s.trash.adopt()
}

// discard measures and throws away.
func (s *Store) discard(path string) error {
	size, err := diskUsage(path)
	if err != nil {
		return err
	}
	return s.trash.add(path, size)
}

// load reads the index into memory.
func (s *Store) load() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.db.View(func(tx *bolt.Tx) error {
		err := eachJSON(tx, bucketLayers, s.log, func(_ string, r record) {
			s.layers[r.ID] = &layer{record: r}
		})
		if err != nil {
			return err
		}
		for _, l := range s.layers {
			if blob := s.layers[ID(l.DiffID)]; blob != nil && blob != l {
				l.setPacked(blob)
			}
		}
		err = eachJSON(tx, bucketHolds, s.log, s.loadHold)
		if err != nil {
			return err
		}
		return eachJSON(tx, bucketVolumes, s.log, s.loadVolume)
	})
}

// eachJSON calls fn for the values of a bucket. One that cannot be read is passed over: what it named will be found missing.
func eachJSON[T any](tx *bolt.Tx, bucket string, log *slog.Logger, fn func(key string, v T)) error {
	b := tx.Bucket([]byte(bucket))
	if b == nil {
		return nil
	}
	return b.ForEach(func(k, v []byte) error {
		var t T
		if err := json.Unmarshal(v, &t); err != nil {
			log.Warn("unreadable entry in layer index", "bucket", bucket, "key", string(k), "error", err)
			return nil
		}
		fn(string(k), t)
		return nil
	})
}

// bootID names this run of the kernel; empty where it cannot be told.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
