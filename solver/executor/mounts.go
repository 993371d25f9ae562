package executor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"golang.org/x/sys/unix"
)

// mount is one mount of a step and what it is made of. What is held is given back by close, then seal or discard.
type mount struct {
	Mount
	ref   *layers.Ref
	upper *layers.Upper
	// keep says that the upper may be sealed, and upperDir is its directory then.
	keep     bool
	upperDir string
	rootfs   *layers.Rootfs
	volume   *layers.Volume // may be that of an earlier mount, which then owns it
	owns     bool
	// host is the directory, file or socket shown; empty if the runtime makes it.
	host string
	// dest is where it is mounted, free of symlinks.
	dest string
	// stubs are those made inside it for other mounts; nil if it cannot be written to.
	stubs *stubs
	// absent says that it is left out: an optional secret or agent that nobody has.
	absent bool
}

// pin takes hold of the layers of every mount. All that are missing are named.
func pin(ctx context.Context, store *layers.Store, mounts []*mount) error {
	var missing []layers.ID
	for _, m := range mounts {
		if m.Type != MountBind && len(m.Layers) == 0 {
			continue
		}
		ref, err := store.Pin(ctx, m.Layers...)
		if errors.Is(err, layers.ErrNotFound) {
			missing = append(missing, missingOf(ctx, store, m.Layers)...)
			continue
		}
		if err != nil {
			return fmt.Errorf("pin layers of %s: %w", m.Dest, err)
		}
		m.ref = ref
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return &MissingInputError{IDs: slices.Compact(missing)}
	}
	return nil
}

// missingOf finds out which of ids are gone; all, should they have come back by now.
func missingOf(ctx context.Context, store *layers.Store, ids []layers.ID) []layers.ID {
	var missing []layers.ID
	for _, id := range ids {
		ref, err := store.Pin(ctx, id)
		if err != nil {
			missing = append(missing, id)
			continue
		}
		_ = ref.Release() // a hold of a moment
	}
	if len(missing) == 0 {
		return ids
	}
	return missing
}

// openVolumes opens the volumes of cache mounts, in the order of their keys: see the package comment. A key that occurs twice in
// one step is one volume, or a step would wait for itself.
func openVolumes(ctx context.Context, store *layers.Store, svc Services, mounts []*mount) error {
	byKey := map[string][]*mount{}
	for _, m := range mounts {
		if m.Type == MountCache {
			byKey[m.CacheKey] = append(byKey[m.CacheKey], m)
		}
	}
	keys := make([]string, 0, len(byKey))
	for key := range byKey {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		same := byKey[key]
		first := same[0]
		o := layers.VolumeOptions{
			Key:         key,
			Sharing:     strictest(same),
			Base:        first.ref,
			BasePath:    first.Selector,
			Mode:        first.Mode,
			UID:         first.UID,
			GID:         first.GID,
			Description: fmt.Sprintf("cache mount %s (%s)", first.Dest, key),
		}
		if svc != nil {
			o.Begin = func(ctx context.Context) (*layers.Ref, error) { return svc.CacheMount(ctx, key) }
		}
		if err := beginAs(ctx, store, &o); err != nil {
			return fmt.Errorf("open cache mount %s: %w", first.Dest, err)
		}
		v, err := store.Volume(ctx, o)
		if err != nil {
			return fmt.Errorf("open cache mount %s: %w", first.Dest, err)
		}
		for _, m := range same {
			m.volume, m.host, m.stubs = v, v.Path(), newStubs()
		}
		first.owns = true
	}
	return nil
}

// beginAs fills in the attributes of a new volume's directory where the spec leaves them open: they are those of what it begins
// as a copy of.
func beginAs(ctx context.Context, store *layers.Store, o *layers.VolumeOptions) error {
	if o.Mode != 0 {
		return nil
	}
	o.Mode = 0o755
	if o.Base == nil {
		return nil
	}
	tree, err := store.Tree(ctx, o.Base)
	if err != nil {
		return err
	}
	p, err := fstree.Resolve(ctx, tree, o.BasePath, true)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &InvalidSpecError{Field: "source", Err: err}
	}
	e, err := tree.Stat(ctx, p)
	if err != nil {
		return err
	}
	if !e.IsDir() {
		return &InvalidSpecError{Field: "source", Err: fmt.Errorf("%s: not a directory", o.BasePath)}
	}
	o.Mode, o.UID, o.GID = e.Mode&0o7777, e.UID, e.GID
	return nil
}

// strictest is the sharing that satisfies all mounts of one volume.
func strictest(same []*mount) layers.Sharing {
	sharing := layers.Shared
	for _, m := range same {
		switch m.CacheSharing {
		case layers.Locked:
			return layers.Locked
		case layers.Private:
			sharing = layers.Private
		}
	}
	return sharing
}

// compose mounts the stack of a bind. nested says that other mounts go inside: then even a read-only one gets an upper, which
// takes their stubs and is thrown away.
func (m *mount) compose(ctx context.Context, store *layers.Store, nested bool) error {
	if m.Output || !m.ReadOnly || nested {
		upper, err := store.NewUpper(ctx)
		if err != nil {
			return fmt.Errorf("make upper of %s: %w", m.Dest, err)
		}
		m.upper, m.stubs = upper, newStubs()
	}
	rootfs, err := composeBusy(ctx, store, m.ref, m.upper)
	if err != nil {
		return fmt.Errorf("mount layers of %s: %w", m.Dest, err)
	}
	m.rootfs, m.host = rootfs, rootfs.Path()
	if m.keep {
		if m.upperDir, err = upperDir(m.upper, rootfs); err != nil {
			return fmt.Errorf("mount layers of %s: %w", m.Dest, err)
		}
	}
	if len(split(m.Selector)) == 0 {
		return nil
	}
	m.host, err = resolveSelector(rootfs.Path(), m.Selector)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%s: %w", m.Selector, fs.ErrNotExist)
		}
		return &InvalidSpecError{Field: "source of mount " + m.Dest, Err: err}
	}
	// Stubs go below the selected path; the upper begins above it.
	m.stubs.base(rootfs.Path(), m.host)
	return nil
}

// How long layers that are in use are waited for, and how often they are looked at.
const (
	busyTime = 10 * time.Second
	busyTick = 5 * time.Millisecond
)

// composeBusy is Compose, waiting while a layer is in use. Every container on the host, whoever makes it, begins with a copy of
// all mounts and drops it some tens of milliseconds later. A step's root that was unmounted in between lives on for so long, and
// overlayfs refuses its upper, sealed by now, as a layer of the next step. Nothing tells when it has gone.
func composeBusy(ctx context.Context, store *layers.Store, ref *layers.Ref, up *layers.Upper) (*layers.Rootfs, error) {
	rootfs, err := store.Compose(ctx, ref, up)
	if !errors.Is(err, unix.EBUSY) {
		return rootfs, err
	}
	tick := time.NewTicker(busyTick)
	defer tick.Stop()
	for end := time.Now().Add(busyTime); errors.Is(err, unix.EBUSY) && time.Now().Before(end); {
		select {
		case <-tick.C:
			rootfs, err = store.Compose(ctx, ref, up)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return rootfs, err
}

// unmount ends what is mounted.
func (m *mount) unmount() error {
	if m.rootfs == nil {
		return nil
	}
	rootfs := m.rootfs
	m.rootfs = nil
	return rootfs.Close()
}

// release gives back whatever is still held.
func (m *mount) release() error {
	var errs []error
	if m.upper != nil {
		errs = append(errs, m.upper.Discard())
		m.upper = nil
	}
	if m.owns {
		errs = append(errs, m.volume.Release())
		m.owns = false
	}
	if m.ref != nil {
		errs = append(errs, m.ref.Release())
		m.ref = nil
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("release mount %s: %w", m.Dest, err)
	}
	return nil
}

// seal makes a layer of what was written. The mount is unmounted.
func (m *mount) seal(ctx context.Context, store *layers.Store, args []string) (*layers.Ref, error) {
	if err := m.stubs.clean(m.upperDir); err != nil {
		return nil, fmt.Errorf("remove mount points from the layer of %s: %w", m.Dest, err)
	}
	upper := m.upper
	m.upper = nil // used up, also on error
	ref, err := store.Seal(ctx, upper, layers.ImportOptions{
		Labels: layers.Labels{
			Description: fmt.Sprintf("mount %s from exec %s", m.Dest, strings.Join(args, " ")),
			Use:         layers.UseRegular,
		},
		Parents: m.Layers,
	})
	if err != nil {
		return nil, fmt.Errorf("seal layer of %s: %w", m.Dest, err)
	}
	return ref, nil
}

// isDir says what the stub for a mount must be.
func (m *mount) isDir() (bool, error) {
	if m.host == "" {
		return true, nil
	}
	var st unix.Stat_t
	if err := unix.Lstat(m.host, &st); err != nil {
		return false, &fs.PathError{Op: "stat", Path: m.host, Err: err}
	}
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

// inside says whether dest lies below dir, both clean.
func inside(dest, dir string) bool {
	return dest != dir && strings.HasPrefix(dest, strings.TrimSuffix(dir, "/")+"/")
}

// absolute is where a destination is, taken from the working directory if it is relative.
func absolute(cwd, dest string) string {
	if path.IsAbs(dest) {
		return path.Clean(dest)
	}
	return path.Join("/", cwd, dest)
}
