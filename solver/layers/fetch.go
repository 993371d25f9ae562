package layers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/slipwaybuild/slipway/solver/flight"
	"github.com/slipwaybuild/slipway/solver/layers/blob"
	"github.com/slipwaybuild/slipway/solver/layers/decompress"
	"github.com/slipwaybuild/slipway/solver/progress"
	"golang.org/x/sync/errgroup"
)

// OffsetFetcher is what a [Fetcher] may be as well, to go on with an interrupted download where it ended.
type OffsetFetcher interface {
	// FetchAt opens the compressed blob at an offset in bytes.
	FetchAt(ctx context.Context, blob RemoteBlob, offset int64) (io.ReadCloser, error)
}

// Fetch brings the bytes of every remote or lent layer of r, each once however many ask, in parallel, verified. p may be nil. A
// download belongs to all who wait for it: it goes on with another's Fetcher when one fails or leaves, and is cancelled when the
// last leaves.
func (s *Store) Fetch(ctx context.Context, r *Ref, f Fetcher, p progress.Writer) error {
	done, err := s.begin()
	if err != nil {
		return fmt.Errorf("fetch layers: %w", err)
	}
	defer done()
	hold, err := s.borrow(r)
	if err != nil {
		return fmt.Errorf("fetch layers: %w", err)
	}
	defer func() { _ = hold.Release() }() // released once, here
	if err := s.bringLent(ctx, hold); err != nil {
		return fmt.Errorf("fetch layers: %w", err)
	}
	remote := s.remoteOf(hold)
	if len(remote) == 0 {
		return nil
	}
	if f == nil {
		return fmt.Errorf("fetch layer %s: %w", remote[0].DiffID, ErrNotLocal)
	}
	for _, info := range remote {
		if info.Remote == nil {
			return fmt.Errorf("fetch layer %s: %w", info.DiffID, ErrNotFound)
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, info := range remote {
		g.Go(func() error {
			w := newFetchWaiter(f, p, *info.Remote)
			defer w.finish()
			err := once(gctx, s.fetches, info.DiffID, w, func(c *flight.Call) error { return s.bring(c, info.ID) })
			if err != nil {
				return fmt.Errorf("fetch layer %s of %s: %w", info.Remote.Descriptor.Digest, info.Remote.Ref, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// remoteOf lists the remote layers of r, each once.
func (s *Store) remoteOf(r *Ref) []Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[*layer]bool{}
	var infos []Info
	for _, l := range r.layers {
		if !l.local() && !seen[l] {
			seen[l] = true
			infos = append(infos, l.info())
		}
	}
	return infos
}

// bring fetches one layer. It runs once for all who wait, so it takes a hold of its own.
func (s *Store) bring(c *flight.Call, id ID) error {
	ctx := c.Context()
	r, err := s.pin([]ID{id})
	if err != nil {
		return err
	}
	defer func() { _ = r.Release() }() // released once, here
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	unlock, err := s.writers.Lock(ctx, r.layers[0].DiffID)
	if err != nil {
		return err
	}
	defer unlock()
	remotes := s.stillRemote(r.layers[0])
	var errs []error
	for _, b := range remotes {
		err := s.download(c, b)
		if err == nil {
			return nil
		}
		if b.Cached && ctx.Err() == nil && !errors.Is(err, ErrNoSpace) && !errors.Is(err, ErrClosed) && !errdefs.IsNotFound(err) {
			s.log.Warn("a cache's blob cannot be had", "layer", b.DiffID, "blob", b.Descriptor.Digest, "at", b.Ref, "error", err)
			err = fmt.Errorf("%w: %w: %w", err, ErrNotFound, errdefs.ErrNotFound)
		}
		errs = append(errs, err)
		if ctx.Err() != nil || errors.Is(err, ErrNoSpace) {
			break
		}
	}
	if len(errs) == len(remotes) && !slices.ContainsFunc(errs, func(err error) bool { return !errdefs.IsNotFound(err) }) {
		s.losePlaces(r.layers[0], remotes)
	}
	return errors.Join(errs...)
}

// stillRemote lists where to fetch l from; nothing if somebody brought it meanwhile.
func (s *Store) stillRemote(l *layer) []RemoteBlob {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.local() {
		return nil
	}
	return l.Remotes
}

// download fetches, verifies, decompresses and publishes.
func (s *Store) download(c *flight.Call, b RemoteBlob) error {
	ctx := c.Context()
	d := newDownload(c, b)
	defer d.close()
	o := ImportOptions{Want: b.DiffID}
	res := s.newReservation()
	defer res.end()
	if err := res.grow(ctx, b.Descriptor.Size); err != nil {
		return err
	}
	file, err := s.newBlob(ctx, res, func(f *os.File, res *reservation) (blob.Summary, error) {
		sum, err := s.indexDownload(ctx, d, f, res)
		// A broken download is told as such, not as the nonsense it unpacks to.
		if derr := d.verify(err); derr != nil {
			return sum, derr
		}
		return sum, err
	})
	if err != nil {
		return err
	}
	defer file.discard()
	if file.sum.DiffID != o.Want {
		return &DigestMismatchError{What: "diffID", Want: o.Want, Got: file.sum.DiffID}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if l := s.layers[ID(o.Want)]; l != nil {
		o.Labels, o.Parents = l.Labels, l.Parents
	}
	_, err = s.publish(file, o)
	return err
}

func (s *Store) indexDownload(ctx context.Context, d *download, f *os.File, res *reservation) (blob.Summary, error) {
	tar, err := decompress.NewReader(d)
	if err != nil {
		return blob.Summary{}, err
	}
	// The order matters: what decompresses ahead ends once there is nothing more to read.
	defer func() { d.close(); _ = tar.Close() }()
	limited := &bombReader{r: &contextReader{ctx, tar}, max: s.o.MaxLayer, ratio: s.o.MaxRatio, compressed: d.offset.Load}
	sum, err := blob.Index(ctx, &reservingReader{limited, ctx, res}, f, blob.Limits{})
	if err != nil {
		if d.suspect(err) {
			_ = tar.Close() // it reads ahead
			_, _ = io.Copy(io.Discard, d)
		}
		return sum, err
	}
	// Tar tools end before the compressed stream does.
	_, err = io.Copy(io.Discard, d)
	return sum, err
}

// bombReader refuses what unpacks to more than it should.
type bombReader struct {
	r          io.Reader
	n          int64
	max, ratio int64
	compressed func() int64
}

// noRatioBelow is a size up to which any ratio is taken: files full of zeros are common, and small.
const noRatioBelow = 1 << 30

func (b *bombReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.n += int64(n)
	if b.n > b.max {
		return 0, fmt.Errorf("%w: it unpacks to more than %d bytes", ErrTooBig, b.max)
	}
	if b.n > noRatioBelow && b.n/b.ratio > b.compressed() {
		return 0, fmt.Errorf("%w: it unpacks to more than %d times its compressed size", ErrTooBig, b.ratio)
	}
	return n, err
}
