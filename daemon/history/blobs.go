package history

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// blobs is a content store whose blobs are counted: each goes with the last record that needs it. A reader that has one open
// reads on.
//
// A blob that was written can be read, also by the next daemon if this one is killed; on disk it is after sync.
type blobs struct {
	dir   string
	store content.Store

	mu     sync.Mutex
	refs   map[digest.Digest]int
	unsync map[digest.Digest]bool // written and perhaps not on disk
}

// smallBlob is up to which size blobs are gathered in memory, and placed without the content store's bookkeeping of writes that may be
// gone on with: nearly all are a few kilobytes, and every build writes half a dozen.
const smallBlob = 1 << 20

func openBlobs(dir string) (*blobs, error) {
	b := &blobs{dir: dir, refs: map[digest.Digest]int{}, unsync: map[digest.Digest]bool{}}
	// An empty store cannot be walked without the first.
	for _, d := range []string{filepath.Dir(b.path(digest.FromBytes(nil))), b.newDir()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	var err error
	b.store, err = local.NewStore(dir)
	return b, err
}

// newDir is where blobs are written that get their name when they are whole.
func (b *blobs) newDir() string { return filepath.Join(b.dir, "new") }

// path is where the content store has a blob.
func (b *blobs) path(d digest.Digest) string {
	return filepath.Join(b.dir, "blobs", d.Algorithm().String(), d.Encoded())
}

// write stores what fill writes and counts one use of it, which is the caller's to drop.
func (b *blobs) write(ctx context.Context, mediaType string, fill func(io.Writer) error) (_ ocispecs.Descriptor, err error) {
	g := &gatherer{ctx: ctx, store: b.store}
	defer func() { err = errors.Join(err, g.close()) }()
	if err := fill(g); err != nil {
		return ocispecs.Descriptor{}, err
	}
	if g.large == nil {
		return b.writeBytes(ctx, mediaType, g.small.Bytes())
	}
	desc := ocispecs.Descriptor{MediaType: mediaType, Digest: g.large.Digest(), Size: g.n}
	// Counted first, so that the end of another record with the same blob does not take it away again.
	b.add(desc.Digest)
	if err := g.large.Commit(ctx, desc.Size, desc.Digest); err != nil && !errdefs.IsAlreadyExists(err) {
		return ocispecs.Descriptor{}, errors.Join(fmt.Errorf("write blob %s: %w", desc.Digest, err), b.drop(ctx, desc.Digest))
	}
	g.committed = true
	return desc, nil
}

// writeBytes is write of something that is in memory.
func (b *blobs) writeBytes(ctx context.Context, mediaType string, data []byte) (ocispecs.Descriptor, error) {
	desc := ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	b.add(desc.Digest)
	if err := b.place(desc.Digest, data); err != nil {
		return ocispecs.Descriptor{}, errors.Join(fmt.Errorf("write blob %s: %w", desc.Digest, err), b.drop(ctx, desc.Digest))
	}
	return desc, nil
}

// place gives data its name, unless it is there: builds that changed nothing have manifests and configs in common.
func (b *blobs) place(d digest.Digest, data []byte) error {
	if fi, err := os.Stat(b.path(d)); err == nil && fi.Size() == int64(len(data)) {
		return nil
	}
	f, err := os.CreateTemp(b.newDir(), "")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(0o444), f.Close())
	if err == nil {
		b.mu.Lock()
		b.unsync[d] = true
		b.mu.Unlock()
		err = os.Rename(f.Name(), b.path(d))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// sync brings those of the blobs to disk that may not be there yet.
func (b *blobs) sync(list ...digest.Digest) error {
	var todo []digest.Digest
	b.mu.Lock()
	for _, d := range list {
		if b.unsync[d] {
			todo = append(todo, d)
		}
	}
	b.mu.Unlock()
	if len(todo) == 0 {
		return nil
	}
	for _, d := range todo {
		if err := syncFile(b.path(d)); err != nil {
			return fmt.Errorf("write blob %s: %w", d, err)
		}
	}
	if err := syncFile(filepath.Dir(b.path(todo[0]))); err != nil {
		return fmt.Errorf("write blobs: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range todo {
		delete(b.unsync, d)
	}
	return nil
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// whole tells whether a blob is there with just the content it is named by: the host's end may have taken what was not synced.
func (b *blobs) whole(d digest.Digest) bool {
	f, err := os.Open(b.path(d))
	if err != nil {
		return false
	}
	v := d.Verifier()
	_, err = io.Copy(v, f)
	return errors.Join(err, f.Close()) == nil && v.Verified()
}

// distrust has a blob of an earlier daemon synced by the next sync.
func (b *blobs) distrust(d digest.Digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unsync[d] = true
}

// gatherer holds in memory what is small, and gives to the store what is not.
type gatherer struct {
	ctx       context.Context
	store     content.Store
	small     bytes.Buffer
	large     content.Writer
	n         int64
	committed bool
}

func (g *gatherer) Write(p []byte) (int, error) {
	if g.large == nil && g.small.Len()+len(p) <= smallBlob {
		return g.small.Write(p)
	}
	if g.large == nil {
		w, err := g.store.Writer(g.ctx, content.WithRef("history-"+rand.Text()))
		if err != nil {
			return 0, fmt.Errorf("write blob: %w", err)
		}
		g.large = w
		n, err := w.Write(g.small.Bytes())
		g.n += int64(n)
		if err != nil {
			return 0, err
		}
		g.small = bytes.Buffer{}
	}
	n, err := g.large.Write(p)
	g.n += int64(n)
	return n, err
}

// close ends a write to the store, and forgets it if it was not committed.
func (g *gatherer) close() error {
	if g.large == nil {
		return nil
	}
	if g.committed {
		return g.large.Close()
	}
	st, err := g.large.Status()
	closeErr := g.large.Close()
	if err == nil {
		_ = g.store.Abort(g.ctx, st.Ref) // the next start does it otherwise
	}
	return closeErr
}

// add counts a use of each.
func (b *blobs) add(list ...digest.Digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range list {
		b.refs[d]++
	}
}

// drop ends a use of each, and removes what has no other.
func (b *blobs) drop(ctx context.Context, list ...digest.Digest) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, d := range list {
		if b.refs[d]--; b.refs[d] > 0 {
			continue
		}
		delete(b.refs, d)
		delete(b.unsync, d)
		if err := b.store.Delete(ctx, d); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("remove blob %s: %w", d, err))
		}
	}
	return errors.Join(errs...)
}

// sweep removes what a crash left: blobs that nobody counts, and writes that never ended. Nothing else may run.
func (b *blobs) sweep(ctx context.Context) error {
	var orphans []digest.Digest
	err := b.store.Walk(ctx, func(i content.Info) error {
		if b.refs[i.Digest] == 0 {
			orphans = append(orphans, i.Digest)
		}
		return nil
	})
	errs := []error{err}
	for _, d := range orphans {
		errs = append(errs, b.store.Delete(ctx, d))
	}
	unfinished, err := b.store.ListStatuses(ctx)
	errs = append(errs, err)
	for _, st := range unfinished {
		errs = append(errs, b.store.Abort(ctx, st.Ref))
	}
	left, err := os.ReadDir(b.newDir())
	errs = append(errs, err)
	for _, f := range left {
		errs = append(errs, os.Remove(filepath.Join(b.newDir(), f.Name())))
	}
	return errors.Join(errs...)
}

func digests(list []string) []digest.Digest {
	out := make([]digest.Digest, 0, len(list))
	for _, d := range list {
		out = append(out, digest.Digest(d))
	}
	return out
}
