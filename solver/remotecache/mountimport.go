package remotecache

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// chunkDownloads is how many chunks are fetched ahead of the one that is read.
const chunkDownloads = 4

// Mount brings the content of a cache mount here as one layer, from the first import that has it; nil if none has. The caller discards it,
// with [layers.Store.Discard]. What is wrong with an import is told, and the next one is asked. An error is of the context, or of
// the layer store.
func (s *Imports) Mount(ctx context.Context, id string, tell func(string)) (*layers.Ref, error) {
	for _, im := range s.all() {
		ref, err := im.mount(ctx, id, tell)
		if err == nil && ref != nil {
			return ref, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			tell(fmt.Sprintf("cache mount %s cannot be brought from the cache, so it begins without: %v", title(id), err))
		}
	}
	return nil, nil
}

func (im *Import) mount(ctx context.Context, id string, tell func(string)) (*layers.Ref, error) {
	books, err := im.load(ctx)
	if err != nil {
		return nil, err
	}
	for _, b := range books {
		m := b.mount(id)
		if m == nil {
			continue
		}
		r, stop := readChunks(ctx, im.place, m.Chunks)
		ref, err := im.layers.Import(ctx, r, layers.ImportOptions{
			Want: m.DiffID, Labels: layers.Labels{Use: layers.UseCacheMount, Description: "content of the cache mount " + id},
		})
		stop()
		if err != nil {
			return nil, err
		}
		tell(fmt.Sprintf("brought cache mount %s from %s", title(id), im.place.Title()))
		return ref, nil
	}
	return nil, nil
}

// readChunks reads the content that chunks make up, each verified before a byte of it is given away. stop ends the fetching; it is called
// once nobody reads any more.
func readChunks(ctx context.Context, p Place, chunks []Chunk) (r io.Reader, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	type fetched struct {
		data []byte
		err  error
	}
	// Each chunk comes through a channel of its own, so that they are read in order and fetched side by side.
	queue := make(chan chan fetched, chunkDownloads)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(queue)
		for _, c := range chunks {
			one := make(chan fetched, 1)
			select {
			case queue <- one:
			case <-ctx.Done():
				return
			}
			go func() {
				data, err := readChunk(ctx, p, c)
				one <- fetched{data, err}
			}()
		}
	}()
	pr, pw := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var err error
		for one := range queue {
			f := <-one
			if err == nil {
				err = f.err
			}
			if err == nil {
				_, err = pw.Write(f.data)
			}
			if err != nil {
				cancel()
			}
		}
		if err == nil {
			err = context.Cause(ctx) // what is missing then is no end
		}
		_ = pw.CloseWithError(err) // never fails
	}()
	return pr, func() {
		cancel()
		_ = pr.Close() // never fails
		<-done
		<-ended
	}
}

// readChunk fetches a chunk and verifies it.
func readChunk(ctx context.Context, p Place, c Chunk) (_ []byte, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("chunk %s: %w", c.Descriptor.Digest, err)
		}
	}()
	r, err := p.Open(ctx, c.Descriptor)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(r, c.Descriptor.Size+1))
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	if digest.FromBytes(data) != c.Descriptor.Digest {
		return nil, errors.New("the content has another digest")
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxChunk))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	return dec.DecodeAll(data, nil)
}
