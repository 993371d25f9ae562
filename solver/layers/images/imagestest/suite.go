// Package imagestest is the contract of the image store as a suite of tests, run on every backing it has.
package imagestest

import (
	"context"
	"testing"

	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/images"
)

// Opener opens the backing of one test, the same one every time, and returns how to close it; nil is the store's own.
type Opener func() (backing images.Backing, closeIt func() error)

// Run runs the suite. fresh is called once for every test and returns the opener of a backing that is empty.
func Run(t *testing.T, fresh func(t *testing.T) Opener) {
	for _, c := range []struct {
		name string
		run  func(w *world)
	}{
		{"ImageHoldsItsLayersWhileItHasNames", testImageHoldsItsLayersWhileItHasNames},
		{"NameThatMovesLeavesADanglingImage", testNameThatMovesLeavesADanglingImage},
		{"ImageWithoutName", testImageWithoutName},
		{"ContentOutsideLeasesAndImagesIsCollected", testContentOutsideLeasesAndImagesIsCollected},
		{"KeepAdoptsContent", testKeepAdoptsContent},
		{"Restart", testRestart},
		{"Stands", testStands},
		{"ProviderReadsUncompressedLayersFromTheLayerStore", testProviderReadsUncompressedLayersFromTheLayerStore},
		{"LayersOfAnImage", testLayersOfAnImage},
		{"PutOfWhatIsNotThere", testPutOfWhatIsNotThere},
		{"SecondProcess", testSecondProcess},
		{"ProviderReadsThePackedLayerOfAStep", testProviderReadsThePackedLayerOfAStep},
		{"SomebodyElseRemovesALease", testSomebodyElseRemovesALease},
		{"LazyLayersAreKeptForTheirReader", testLazyLayersAreKeptForTheirReader},
		{"SharedStoreHasTheLayers", testSharedStoreHasTheLayers},
		{"BringFetches", testBringFetches},
		{"PutOfLayersThatAreElsewhere", testPutOfLayersThatAreElsewhere},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(newWorld(t, fresh(t))) })
	}
}

// world is an image store and the layer store below it, which can be closed and opened again.
type world struct {
	testing.TB
	root      string
	fresh     Opener
	layers    *layers.Store
	images    *images.Store
	closeBack func() error
}

func newWorld(t *testing.T, fresh Opener) *world {
	t.Helper()
	w := &world{TB: t, root: t.TempDir(), fresh: fresh}
	w.open()
	t.Cleanup(w.close)
	return w
}

func (w *world) open() {
	w.Helper()
	ctx := context.Background()
	var err error
	w.layers, err = layers.Open(ctx, layers.Options{Root: w.root + "/layers", Realisation: "unpacked"})
	w.ok(err)
	backing, closeIt := w.fresh()
	w.closeBack = closeIt
	w.images, err = images.Open(ctx, images.Options{Root: w.root + "/images", Layers: w.layers, Backing: backing})
	w.ok(err)
}

func (w *world) close() {
	w.Helper()
	for _, c := range []func() error{w.images.Close, w.closeBack, w.layers.Close} {
		if err := c(); err != nil {
			w.Error(err)
		}
	}
}

// ok ends the test if err is not nil.
func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}
