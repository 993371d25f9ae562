package cachestore_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/cachestore"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/storetest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// home is a layer store and the cache in it, which can be closed and opened again.
type home struct {
	t     *testing.T
	root  string
	max   int
	Layer *layers.Store
	Cache *cachestore.Store
}

func newHome(t *testing.T, max int) *home {
	h := &home{t: t, root: t.TempDir(), max: max}
	h.open()
	t.Cleanup(h.close)
	return h
}

func (h *home) open() {
	h.t.Helper()
	var err error
	if h.Layer, err = layers.Open(h.t.Context(), layers.Options{Root: h.root, Realisation: "unpacked"}); err != nil {
		h.t.Fatalf("open layer store: %v", err)
	}
	if h.Cache, err = cachestore.New(h.t.Context(), cachestore.Options{Layers: h.Layer, MaxRecords: h.max}); err != nil {
		h.t.Fatalf("open cache: %v", err)
	}
}

func (h *home) close() {
	if err := h.Cache.Close(); err != nil {
		h.t.Errorf("close cache: %v", err)
	}
	if err := h.Layer.Close(); err != nil {
		h.t.Errorf("close layer store: %v", err)
	}
}

// layer makes a layer with one file, the same for the same n.
func (h *home) layer(n int) *layers.Ref {
	h.t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	data := fmt.Appendf(nil, "layer %d", n)
	hdr := &tar.Header{Name: "file", Mode: 0o644, Size: int64(len(data)), ModTime: time.Unix(1, 0)}
	if err := w.WriteHeader(hdr); err != nil {
		h.t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		h.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		h.t.Fatal(err)
	}
	ref, err := h.Layer.Import(h.t.Context(), &b, layers.ImportOptions{})
	if err != nil {
		h.t.Fatalf("import layer: %v", err)
	}
	return ref
}

func identity(n int) solver.Identity {
	return solver.Parts{{Name: "n", Value: fmt.Sprint(n)}}.Sum("identity")
}

func (h *home) put(i int, rec solver.Record, layer int) {
	h.t.Helper()
	r := cachestore.NewResult(h.layer(layer))
	defer func() {
		if err := r.Release(); err != nil {
			h.t.Error(err)
		}
	}()
	if err := h.Cache.PutResults(h.t.Context(), identity(i), rec, []solver.Result{r}); err != nil {
		h.t.Fatalf("PutResults: %v", err)
	}
}

func (h *home) has(i int) bool {
	h.t.Helper()
	results, ok, err := h.Cache.Results(h.t.Context(), identity(i))
	if err != nil {
		h.t.Fatalf("Results: %v", err)
	}
	for _, r := range results {
		if err := r.Release(); err != nil {
			h.t.Error(err)
		}
	}
	return ok
}

func (h *home) prune() {
	h.t.Helper()
	if err := h.Layer.Prune(h.t.Context(), layers.PruneOptions{All: true}, func(layers.Usage) {}); err != nil {
		h.t.Fatalf("prune: %v", err)
	}
}

func TestStore(t *testing.T) {
	storetest.TestStore(t, func(t *testing.T) storetest.Fixture {
		h := newHome(t, 0)
		return storetest.Fixture{
			Store:     h.Cache,
			NewResult: func(t *testing.T, n int) solver.Result { return cachestore.NewResult(h.layer(n)) },
			Same: func(a, b solver.Result) bool {
				return slices.Equal(cachestore.RefOf(a).IDs(), cachestore.RefOf(b).IDs())
			},
			Reopen: func(*testing.T) solver.Store {
				h.close()
				h.open()
				return h.Cache
			},
		}
	})
}

func TestRecordOfPrunedLayersIsAMiss(t *testing.T) {
	h := newHome(t, 0)
	rec := solver.Record{Step: digest.FromString("step"), Name: "RUN make", IdentityKey: solver.Parts{{Name: "arg.0", Value: "make"}}}
	h.put(1, rec, 1)
	if !h.has(1) {
		t.Fatal("a new record is a miss")
	}
	h.prune()
	if h.has(1) {
		t.Fatal("the layers are gone, the record is not")
	}
	got, ok, err := h.Cache.PreviousRecord(t.Context(), rec.Step, "")
	if err != nil || !ok || !slices.Equal(got.IdentityKey, rec.IdentityKey) {
		t.Errorf("PreviousRecord = %+v, %v, %v; want what the lost record was made of", got, ok, err)
	}
	h.put(1, rec, 1)
	if !h.has(1) {
		t.Error("a record that was made again is a miss")
	}
}

func TestSweepDropsLostAndOldest(t *testing.T) {
	h := newHome(t, 3)
	for i := range 6 {
		h.put(i, solver.Record{}, i)
	}
	if err := h.Cache.Sweep(t.Context()); err != nil {
		t.Fatalf("Sweep: %v", err)
	}
	left := 0
	for i := range 6 {
		if h.has(i) {
			left++
		}
	}
	if left != 3 {
		t.Errorf("%d records are left, want 3", left)
	}
	h.prune()
	if err := h.Cache.Sweep(t.Context()); err != nil {
		t.Fatalf("Sweep: %v", err)
	}
	for i := range 6 {
		if h.has(i) {
			t.Errorf("record %d is left though its layer is gone", i)
		}
	}
}

func TestResetForgetsEverything(t *testing.T) {
	h := newHome(t, 0)
	h.put(1, solver.Record{Name: "x"}, 1)
	if err := h.Cache.Reset(t.Context()); err != nil {
		t.Fatalf("Reset: %v", err)
	}
	if h.has(1) {
		t.Error("a record is left")
	}
	if _, ok, err := h.Cache.PreviousRecord(t.Context(), "", "x"); ok || err != nil {
		t.Errorf("PreviousRecord = %v, %v; want none", ok, err)
	}
}

func TestPreviousRecordPrefersTheStep(t *testing.T) {
	h := newHome(t, 0)
	step := func(s string, name string, v string) solver.Record {
		return solver.Record{Step: digest.FromString(s), Name: name, IdentityKey: solver.Parts{{Name: "v", Value: v}}}
	}
	h.put(1, step("a", "RUN x", "old"), 1)
	h.put(2, step("a", "RUN x", "mine"), 2)
	h.put(3, step("b", "RUN x", "other"), 3)
	for _, c := range []struct{ step, name, want string }{
		{"a", "RUN x", "mine"},
		{"b", "RUN x", "other"},
		{"c", "RUN x", "other"},
		{"c", "RUN y", ""},
	} {
		rec, ok, err := h.Cache.PreviousRecord(t.Context(), digest.FromString(c.step), c.name)
		if err != nil || ok != (c.want != "") || ok && rec.IdentityKey[0].Value != c.want {
			t.Errorf("PreviousRecord(%s, %s) = %+v, %v, %v; want %q", c.step, c.name, rec, ok, err, c.want)
		}
	}
}

func TestRemoteLayersComeBackLazy(t *testing.T) {
	h := newHome(t, 0)
	blob := layers.RemoteBlob{Ref: "registry.test/a", DiffID: digest.FromString("diff")}
	blob.Descriptor.Digest, blob.Descriptor.Size = digest.FromString("blob"), 100
	blob.Descriptor.MediaType = "application/vnd.oci.image.layer.v1.tar+gzip"
	ref, err := h.Layer.AddRemote(t.Context(), blob)
	if err != nil {
		t.Fatal(err)
	}
	r := cachestore.NewResult(ref)
	if err := h.Cache.PutResults(t.Context(), identity(1), solver.Record{}, []solver.Result{r}); err != nil {
		t.Fatal(err)
	}
	if err := r.Release(); err != nil {
		t.Fatal(err)
	}
	h.prune()
	results, ok, err := h.Cache.Results(t.Context(), identity(1))
	if err != nil || !ok {
		t.Fatalf("Results = %v, %v; want the remote layer again", ok, err)
	}
	got := cachestore.RefOf(results[0]).Layers()
	if len(got) != 1 || got[0].DiffID != blob.DiffID || got[0].Kind != layers.Remote {
		t.Errorf("Layers = %+v", got)
	}
	if err := results[0].Release(); err != nil {
		t.Error(err)
	}
}

func TestClosedStoreSaysSo(t *testing.T) {
	h := newHome(t, 0)
	other, err := cachestore.New(t.Context(), cachestore.Options{Layers: h.Layer})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := other.Alias(t.Context(), solver.Promise{}); err != cachestore.ErrClosed { //nolint:errorlint // returned as it is
		t.Errorf("Alias after Close: %v, want ErrClosed", err)
	}
}

// A look-up of a step that is in memory is what a build without changes consists of.
func BenchmarkResultsHot(b *testing.B) {
	root := b.TempDir()
	store, err := layers.Open(b.Context(), layers.Options{Root: root, Realisation: "unpacked"})
	if err != nil {
		b.Fatal(err)
	}
	cache, err := cachestore.New(b.Context(), cachestore.Options{Layers: store})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := cache.Close(); err != nil {
			b.Error(err)
		}
		if err := store.Close(); err != nil {
			b.Error(err)
		}
	}()
	r := cachestore.NewResult(store.Scratch())
	if err := cache.PutResults(b.Context(), identity(1), solver.Record{}, []solver.Result{r}); err != nil {
		b.Fatal(err)
	}
	if err := r.Release(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		got, ok, err := cache.Results(b.Context(), identity(1))
		if err != nil || !ok {
			b.Fatal(ok, err)
		}
		if err := got[0].Release(); err != nil {
			b.Fatal(err)
		}
	}
}
