package remotecache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/cachestore"
	"github.com/slipwaybuild/slipway/solver/layers"
	"golang.org/x/sync/errgroup"
)

// emptyTar is a tar without entries: a layer without content.
var emptyTar = make([]byte, 1024)

// looks is how many blobs are looked for at a time.
const looks = 8

// sighting is whether one blob is where it should be, asked once.
type sighting struct {
	once  sync.Mutex
	asked bool
	there bool
}

// sees tells whether the blobs of an entry's layers are there. Those whose bytes are here need not be.
func (im *Import) sees(ctx context.Context, b *book, e Entry) (bool, error) {
	eg, egCtx := errgroup.WithContext(ctx)
	eg.SetLimit(looks)
	errGone := errors.New("gone")
	asked := map[int]bool{}
	for _, o := range e.Outputs {
		for _, l := range o.Stack {
			if l == NoLayer || asked[l] {
				continue
			}
			asked[l] = true
			eg.Go(func() error {
				there, err := im.seesLayer(egCtx, b.Layers[l])
				if err == nil && !there {
					err = errGone
				}
				return err
			})
		}
	}
	err := eg.Wait()
	if errors.Is(err, errGone) {
		return false, nil
	}
	return err == nil, err
}

func (im *Import) seesLayer(ctx context.Context, l Layer) (bool, error) {
	if im.local(ctx, l) {
		return true, nil
	}
	im.mu.Lock()
	s := im.seen[l.Descriptor.Digest]
	if s == nil {
		s = &sighting{}
		im.seen[l.Descriptor.Digest] = s
	}
	im.mu.Unlock()
	s.once.Lock()
	defer s.once.Unlock()
	if s.asked {
		return s.there, nil
	}
	there, err := im.place.Has(ctx, l.Descriptor)
	if err != nil {
		return false, err
	}
	s.asked, s.there = true, there
	return there, nil
}

// local tells whether the bytes of a layer are here.
func (im *Import) local(ctx context.Context, l Layer) bool {
	ref, err := im.layers.Pin(ctx, layers.ID(l.DiffID))
	if err != nil {
		return false
	}
	here := ref.Layers()[0].Kind != layers.Remote
	return ref.Release() == nil && here
}

// absentLocation is where the layers of absent outputs are said to be: nowhere.
const absentLocation = locations + "absent://"

// absent is a layer that stands for an output which the cache has not. It is lost once somebody asks for its bytes, and the step is made
// again like any other of which a blob has vanished. Its digests are those of no content.
func absent(id solver.Identity, output int) layers.RemoteBlob {
	d := digest.FromString(fmt.Sprintf("absent output %d of %s", output, id))
	return layers.RemoteBlob{Ref: absentLocation, Descriptor: ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayer, Digest: d}, DiffID: d, Description: "output that the cache has not"}
}

// hold makes a result of output n of an entry. Its layers stay where they are.
func (im *Import) hold(ctx context.Context, b *book, e Entry, n int) (_ solver.Result, err error) {
	o := e.Outputs[n]
	if o.Nil {
		return nil, nil
	}
	if o.Absent {
		ref, err := im.layers.AddRemote(ctx, absent(e.Identity, n))
		if err != nil {
			return nil, err
		}
		return cachestore.NewResult(ref), nil
	}
	var refs []*layers.Ref
	defer func() {
		for _, r := range refs {
			err = errors.Join(err, r.Release())
		}
	}()
	var run []layers.RemoteBlob
	flush := func() error {
		if len(run) == 0 {
			return nil
		}
		ref, err := im.layers.AddRemote(ctx, run...)
		if err == nil {
			refs, run = append(refs, ref), nil
		}
		return err
	}
	for _, l := range o.Stack {
		if l != NoLayer {
			layer := b.Layers[l]
			run = append(run, layers.RemoteBlob{Ref: im.place.Location(), Descriptor: layer.Descriptor, DiffID: layer.DiffID, Description: layer.Description,
				CreatedAt: layer.CreatedAt, Cached: true})
			continue
		}
		if err := flush(); err != nil {
			return nil, err
		}
		ref, err := im.layers.Import(ctx, bytes.NewReader(emptyTar), layers.ImportOptions{})
		if err != nil {
			return nil, err
		}
		refs = append(refs, ref)
	}
	if err := flush(); err != nil {
		return nil, err
	}
	return cachestore.NewResult(im.layers.Stack(refs...)), nil
}
