// Package remotecachetest holds what every place of caches must do, as tests.
package remotecachetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"reflect"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/remotecache"
)

// Blob is content in memory.
type Blob []byte

// ReaderAt implements [content.Provider].
func (b Blob) ReaderAt(context.Context, ocispecs.Descriptor) (content.ReaderAt, error) {
	return reader{bytes.NewReader(b)}, nil
}

type reader struct{ *bytes.Reader }

func (reader) Close() error { return nil }

// Desc describes the blob.
func (b Blob) Desc() ocispecs.Descriptor {
	return ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayerGzip, Digest: digest.FromBytes(b), Size: int64(len(b))}
}

// Random makes a blob of a size.
func Random(size int) Blob {
	b := make(Blob, size)
	_, _ = rand.Read(b) // never fails
	return b
}

// Key makes a key from a name.
func Key(name string) [32]byte { return solver.Parts{{Name: "test", Value: name}}.Sum("test") }

// Cache makes a cache of one step with the given layers.
func Cache(name string, blobs ...Blob) *remotecache.Cache {
	c := &remotecache.Cache{}
	o := remotecache.Output{}
	for i, b := range blobs {
		c.Layers = append(c.Layers, remotecache.Layer{
			Descriptor: b.Desc(), DiffID: digest.FromString("diff of " + b.Desc().Digest.String()), CreatedAt: time.Unix(1e9, 0).UTC(),
		})
		o.Stack = append(o.Stack, i)
	}
	c.Entries = append(c.Entries, remotecache.Entry{
		Identity: Key(name), Promises: []solver.Promise{Key("promise of " + name)}, Outputs: []remotecache.Output{o, {Nil: true}},
		Contents: []solver.Content{{Selector: "/a", Digest: digest.FromString("a")}},
		Step:     digest.FromString(name), Name: "RUN " + name, Used: time.Unix(2e9, 0),
	})
	return c
}

func note(string) func() { return func() {} }

// TestTarget tests a place. open opens the same one each time; nothing is there in the beginning.
func TestTarget(t *testing.T, open func(t *testing.T) remotecache.Target) {
	ctx := t.Context()
	target := open(t)
	if list, err := target.Load(ctx); err != nil || len(list) != 0 {
		t.Fatalf("an empty place holds %v, %v", list, err)
	}
	small, large := Random(10), Random(9<<20)
	if there, err := target.Has(ctx, small.Desc()); there || err != nil {
		t.Errorf("Has of nothing: %v, %v", there, err)
	}
	if r, err := target.Open(ctx, small.Desc()); !errdefs.IsNotFound(err) {
		t.Errorf("Open of nothing: %v, %v", r, err)
	}
	for _, b := range []Blob{small, large} {
		for range 2 { // the second time it is there
			if err := target.Put(ctx, b.Desc(), b, ""); err != nil {
				t.Fatalf("Put: %v", err)
			}
		}
		if there, err := target.Has(ctx, b.Desc()); !there || err != nil {
			t.Errorf("Has: %v, %v", there, err)
		}
		check(t, target, b)
	}
	want := Cache("one", small, large)
	for range 2 {
		if _, err := target.Save(ctx, want, note); err != nil {
			t.Fatalf("Save: %v", err)
		}
		found(t, target, want)
	}
	next := Cache("two", large)
	next.Mounts = []remotecache.Mount{{
		ID: "/root/.cache", DiffID: digest.FromString("tar"), Written: time.Unix(2e9, 0), Chunks: []remotecache.Chunk{chunk(small), chunk(large), chunk(small)},
	}}
	if _, err := target.Save(ctx, next, note); err != nil {
		t.Fatalf("Save: %v", err)
	}
	found(t, target, next)
	if target.Location() != open(t).Location() || target.Location() == "" {
		t.Errorf("Location is %q, and %q", target.Location(), open(t).Location())
	}
}

// chunk is a blob as a piece of a cache mount.
func chunk(b Blob) remotecache.Chunk {
	d := b.Desc()
	d.MediaType = remotecache.ChunkMediaType
	return remotecache.Chunk{Descriptor: d, Plain: digest.FromString("plain of " + d.Digest.String())}
}

func check(t *testing.T, p remotecache.Place, b Blob) {
	t.Helper()
	r, err := p.Open(t.Context(), b.Desc())
	if err != nil {
		t.Errorf("Open: %v", err)
		return
	}
	got, err := io.ReadAll(r)
	if closeErr := r.Close(); err != nil || closeErr != nil || !bytes.Equal(got, b) {
		t.Errorf("read %d bytes of %d: %v, %v", len(got), len(b), err, closeErr)
	}
}

func found(t *testing.T, p remotecache.Place, want *remotecache.Cache) {
	t.Helper()
	list, err := p.Load(t.Context())
	if err != nil || len(list) != 1 {
		t.Errorf("Load: %d caches, %v", len(list), err)
		return
	}
	if !reflect.DeepEqual(list[0], want) {
		t.Errorf("Load:\n%+v\nwant\n%+v", list[0], want)
	}
}
