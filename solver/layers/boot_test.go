package layers

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"testing"
)

// TestTornLayerIsAMiss: a layer that was never synced may have lost bytes when the machine went down.
func TestTornLayerIsAMiss(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	root := t.TempDir()
	s, err := Open(t.Context(), Options{Root: root})
	ok(t, err)
	var ids []ID
	for _, name := range []string{"torn", "synced", "held"} {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		ok(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644}))
		ok(t, w.Close())
		r, err := s.Import(t.Context(), &buf, ImportOptions{})
		ok(t, err)
		ids = append(ids, r.IDs()...)
		if name == "held" {
			ok(t, s.Hold(t.Context(), "image", r))
		}
		ok(t, r.Release())
	}
	s.mu.Lock()
	for i, id := range ids {
		l := s.layers[id]
		if unsynced := l.Boot != ""; unsynced != (i < 2) {
			t.Errorf("layer %d: unsynced is %v", i, unsynced)
		}
	}
	// As if the next boot found only the first of them unsynced.
	s.synced(s.layers[ids[1]])
	torn := s.layers[ids[0]]
	torn.Boot = "an earlier boot"
	delete(s.unsynced, torn)
	s.save(torn, true)
	s.mu.Unlock()
	ok(t, s.Close())

	s, err = Open(t.Context(), Options{Root: root})
	ok(t, err)
	defer func() { ok(t, s.Close()) }()
	if _, err := s.Pin(t.Context(), ids[0]); !errors.Is(err, ErrNotFound) {
		t.Errorf("torn layer: %v", err)
	}
	r, err := s.Pin(t.Context(), ids[1:]...)
	ok(t, err)
	ok(t, r.Release())
}
