package layers_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// absent is a registry that has nothing, or cannot be asked.
type absent struct{ err error }

func (a absent) Fetch(context.Context, layers.RemoteBlob) (io.ReadCloser, error) { return nil, a.err }

func TestWhatCannotBeFetchedAnywhereIsLost(t *testing.T) {
	s, err := layers.Open(t.Context(), layers.Options{Root: t.TempDir(), Realisation: layers.Unpacked})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	blob := func(ref string) layers.RemoteBlob {
		b := layers.RemoteBlob{Ref: ref, DiffID: digest.FromString("diff")}
		b.Descriptor.Digest, b.Descriptor.Size = digest.FromString("blob"), 10
		return b
	}
	add := func(refs ...string) *layers.Ref {
		t.Helper()
		var r *layers.Ref
		for _, ref := range refs {
			if r != nil {
				if err := r.Release(); err != nil {
					t.Error(err)
				}
			}
			if r, err = s.AddRemote(t.Context(), blob(ref)); err != nil {
				t.Fatal(err)
			}
		}
		return r
	}
	release := func(r *layers.Ref) {
		t.Helper()
		if err := r.Release(); err != nil {
			t.Error(err)
		}
	}

	r := add("a.test/x", "b.test/x")
	if err := s.Fetch(t.Context(), r, absent{errors.New("unreachable")}, nil); err == nil || r.Lost() != nil {
		t.Errorf("nobody answered: %v, and the layer is lost: %v", err, r.Lost())
	}
	// One place lacks it: there is another.
	s.Lose(blob("b.test/x"))
	if r.Lost() != nil || !s.KnownLost(blob("b.test/x")) || s.KnownLost(blob("a.test/x")) {
		t.Errorf("one place of two: %v", r.Lost())
	}
	if got := r.Layers()[0].Remote; got == nil || got.Ref != "a.test/x" {
		t.Errorf("it is to be had from %v", got)
	}
	notFound := fmt.Errorf("fetch: %w", errdefs.ErrNotFound)
	if err := s.Fetch(t.Context(), r, absent{notFound}, nil); !errdefs.IsNotFound(err) {
		t.Errorf("Fetch: %v", err)
	}
	if err := r.Lost(); !errors.Is(err, layers.ErrNotFound) {
		t.Errorf("Lost: %v", err)
	}
	if err := s.Fetch(t.Context(), r, absent{notFound}, nil); !errors.Is(err, layers.ErrNotFound) {
		t.Errorf("Fetch of what is gone: %v", err)
	}
	if _, err := s.Pin(t.Context(), layers.ID(blob("").DiffID)); !errors.Is(err, layers.ErrNotFound) {
		t.Errorf("Pin: %v", err)
	}
	release(r)

	// Who has seen it since brings it back.
	r = add("a.test/x")
	if r.Lost() != nil || s.KnownLost(blob("a.test/x")) {
		t.Errorf("seen again: %v", r.Lost())
	}
	release(r)
}
