package remotecache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/restic/chunker"
	"github.com/slipwaybuild/slipway/solver/layers"
	"golang.org/x/sync/errgroup"
)

// MountSource is a cache mount to write.
type MountSource struct {
	ID string
	// Open packs the mount as one layer, which the exporter discards; layers.ErrNotFound if it is not here or empty: what the target has
	// under its id stays.
	Open func(ctx context.Context) (*layers.Ref, error)
	// State changes whenever the content may have; false if it may change now. Opening changes it.
	State func() (string, bool)
}

// maxRemembered bounds what is remembered of mounts that were written. To forget one costs reading it once more.
const maxRemembered = 1000

// remembered is the content that a mount had at a state.
type remembered struct {
	state  string
	diffID digest.Digest
}

// remember notes the content of a mount.
func (x *Exporter) remember(id string, m remembered) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.mounts == nil || len(x.mounts) >= maxRemembered {
		x.mounts = map[string]remembered{}
	}
	x.mounts[id] = m
}

// unchanged returns what the content of a mount is known to be; "" if it is not known.
func (x *Exporter) unchanged(src MountSource) digest.Digest {
	state, quiet := src.State()
	x.mu.Lock()
	defer x.mu.Unlock()
	if m, ok := x.mounts[src.ID]; ok && quiet && m.state == state {
		return m.diffID
	}
	return ""
}

// polynomial decides where content is cut. Everybody must use the same, or nothing is found again.
const polynomial = chunker.Pol(0x3DA3358B4DC173)

// bigMount is a size in bytes from which on chunks are larger, and hugeMount one that is not written at all.
const (
	bigMount  = 1 << 30
	hugeMount = 16 << 30
)

// chunkUploads is how many chunks are compressed and written at a time.
const chunkUploads = 4

// writeMounts brings the cache mounts to the target. One that cannot be had is left out, with a line that says why: what the target has of
// it stays.
func (r *export) writeMounts(ctx context.Context) (list []Mount, err error) {
	total := 0
	for _, src := range r.Mounts {
		m, err := r.writeMount(ctx, src)
		var unfit *unfitError
		switch {
		case err == nil && total+len(m.Chunks) > maxChunks:
			r.note(fmt.Sprintf("leaving out cache mount %s: the mounts have more than %d chunks together", title(src.ID), maxChunks))()
		case err == nil:
			total += len(m.Chunks)
			list = append(list, m)
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, layers.ErrNotFound):
		case errors.As(err, &unfit):
			r.note(fmt.Sprintf("leaving out cache mount %s: %v", title(src.ID), err))()
		default:
			return nil, fmt.Errorf("write cache mount %s: %w", title(src.ID), err)
		}
	}
	return list, nil
}

// unfitError says why the content of a mount cannot travel.
type unfitError struct{ err error }

func (e *unfitError) Error() string { return e.err.Error() }
func (e *unfitError) Unwrap() error { return e.err }

func (r *export) writeMount(ctx context.Context, src MountSource) (m Mount, err error) {
	known, err := r.knownChunks(ctx)
	if err != nil {
		return m, err
	}
	if old, ok := r.whole(src.ID, r.x.unchanged(src), known); ok {
		return old, nil
	}
	ref, err := src.Open(ctx)
	if err != nil {
		if !errors.Is(err, layers.ErrNotFound) && ctx.Err() == nil {
			err = &unfitError{err}
		}
		return m, err
	}
	defer func() { err = errors.Join(err, r.x.layers.Discard(ref)) }()
	tar, size, err := r.x.layers.Tar(ctx, ref, 0)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, tar.Close()) }()
	if size > hugeMount {
		return m, &unfitError{fmt.Errorf("%d bytes are more than the limit of %d", size, int64(hugeMount))}
	}
	m = Mount{ID: src.ID, DiffID: ref.Layers()[0].DiffID, Written: r.x.now().Truncate(time.Second)}
	if state, quiet := src.State(); quiet {
		r.x.remember(src.ID, remembered{state, m.DiffID})
	}
	if old, ok := r.whole(m.ID, m.DiffID, known); ok {
		return old, nil
	}
	done := r.note("writing cache mount " + title(src.ID))
	if m.Chunks, err = r.writeChunks(ctx, tar, size, known); err != nil {
		return m, err
	}
	done()
	return m, nil
}

// whole returns a mount that the target has with this content, if all of it is there still.
func (r *export) whole(id string, diffID digest.Digest, known map[digest.Digest]ocispecs.Descriptor) (Mount, bool) {
	i := slices.IndexFunc(r.hadMounts, func(o Mount) bool { return o.ID == id && o.DiffID == diffID })
	if i < 0 || slices.ContainsFunc(r.hadMounts[i].Chunks, func(c Chunk) bool { _, ok := known[c.Plain]; return !ok }) {
		return Mount{}, false
	}
	return r.hadMounts[i], true
}

// knownChunks are those of the target's mounts that are there still, by what they unpack to. The target is asked once.
func (r *export) knownChunks(ctx context.Context) (map[digest.Digest]ocispecs.Descriptor, error) {
	if r.chunks != nil {
		return r.chunks, nil
	}
	var mu sync.Mutex
	known, asked := map[digest.Digest]ocispecs.Descriptor{}, map[digest.Digest]bool{}
	eg, egCtx := errgroup.WithContext(ctx)
	eg.SetLimit(looks)
	for _, m := range r.hadMounts {
		for _, c := range m.Chunks {
			if asked[c.Descriptor.Digest] {
				continue
			}
			asked[c.Descriptor.Digest] = true
			eg.Go(func() error {
				there, err := r.Target.Has(egCtx, c.Descriptor)
				if err != nil {
					return fmt.Errorf("look for chunk %s: %w", c.Descriptor.Digest, err)
				}
				mu.Lock()
				defer mu.Unlock()
				if there {
					known[c.Plain] = c.Descriptor
				}
				return nil
			})
		}
	}
	if err := eg.Wait(); err != nil {
		return nil, err
	}
	r.chunks = known
	return known, nil
}

// writeChunks cuts a tar and brings the pieces that the target lacks.
func (r *export) writeChunks(ctx context.Context, tar io.Reader, size int64, known map[digest.Digest]ocispecs.Descriptor) ([]Chunk, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer func() { _ = enc.Close() }() // it holds no resource but memory
	least, most, bits := uint(256<<10), uint(4<<20), 20
	if size > bigMount {
		least, most, bits = 4<<20, 32<<20, 23
	}
	cut := chunker.NewWithBoundaries(tar, polynomial, least, most)
	cut.SetAverageBits(bits)
	var mu sync.Mutex // guards what follows
	var list []Chunk
	at := map[digest.Digest][]int{} // of chunks under way, and known ones
	eg, egCtx := errgroup.WithContext(ctx)
	eg.SetLimit(chunkUploads)
	for {
		piece, err := cut.Next(make([]byte, 0, most))
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = egCtx.Err()
		}
		if err != nil {
			return nil, errors.Join(err, eg.Wait())
		}
		plain := digest.FromBytes(piece.Data)
		mu.Lock()
		list = append(list, Chunk{Plain: plain})
		at[plain] = append(at[plain], len(list)-1)
		first := len(at[plain]) == 1
		mu.Unlock()
		if _, ok := known[plain]; ok || !first {
			continue
		}
		eg.Go(func() error {
			d, err := r.putChunk(egCtx, enc.EncodeAll(piece.Data, nil))
			mu.Lock()
			defer mu.Unlock()
			for _, i := range at[plain] {
				list[i].Descriptor = d
			}
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return nil, err
	}
	for plain, where := range at {
		d, ok := known[plain]
		for _, i := range where {
			if ok {
				list[i].Descriptor = d
			} else {
				list[i].Descriptor = list[where[0]].Descriptor
			}
		}
	}
	return list, nil
}

func (r *export) putChunk(ctx context.Context, data []byte) (ocispecs.Descriptor, error) {
	d := ocispecs.Descriptor{MediaType: ChunkMediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	there, err := r.Target.Has(ctx, d)
	if err == nil && !there {
		err = r.Target.Put(ctx, d, bytesProvider(data), "")
	}
	if err != nil {
		return d, fmt.Errorf("error writing chunk %s: %w", d.Digest, err)
	}
	return d, nil
}

// bytesProvider is one blob in memory.
type bytesProvider []byte

// ReaderAt implements [content.Provider].
func (b bytesProvider) ReaderAt(context.Context, ocispecs.Descriptor) (content.ReaderAt, error) {
	return bytesReader{bytes.NewReader(b)}, nil
}

type bytesReader struct{ *bytes.Reader }

func (bytesReader) Close() error { return nil }

// withoutLostMounts is old without the mounts of which chunks are gone. Those that mine replaces are not looked at.
func (r *export) withoutLostMounts(ctx context.Context, mine, old *Cache) (*Cache, error) {
	kept := old.clone()
	kept.Mounts = nil
	for _, m := range old.Mounts {
		if mine.mount(m.ID) != nil {
			continue
		}
		whole, err := r.hasChunks(ctx, m)
		if err != nil {
			return nil, err
		}
		if whole {
			kept.Mounts = append(kept.Mounts, m)
		}
	}
	return kept, nil
}

func (r *export) hasChunks(ctx context.Context, m Mount) (bool, error) {
	eg, egCtx := errgroup.WithContext(ctx)
	eg.SetLimit(looks)
	for _, c := range m.Chunks {
		eg.Go(func() error {
			there, err := r.Target.Has(egCtx, c.Descriptor)
			if err == nil && !there {
				err = errdefs.ErrNotFound
			}
			return err
		})
	}
	err := eg.Wait()
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for the chunks of cache mount %s: %w", title(m.ID), err)
	}
	return true, nil
}
