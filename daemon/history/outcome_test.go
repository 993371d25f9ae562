package history

import (
	"errors"
	"path/filepath"
	"testing"
)

// What a build made is kept over a restart and goes with its record.
func TestOutcomes(t *testing.T) {
	root := filepath.Join(t.TempDir(), "h")
	s := open(t, Options{Root: root})
	for _, ref := range []string{"abcdef", "abcxyz", "empty"} {
		b := begin(t, s, Start{Ref: ref})
		if ref != "empty" {
			if err := b.Keep(t.Context(), []byte("made by "+ref)); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.End(t.Context(), nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Pin("abcdef", true); err != nil { // the record is written anew
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, Options{Root: root})
	for name, want := range map[string]string{"abcdef": "abcdef", "abcd": "abcdef", "abcx": "abcxyz", "abc": "", "abcdefg": "", "": ""} {
		got, err := s.Find(name)
		if got != want || (want == "") != errors.Is(err, ErrNotFound) {
			t.Errorf("find %q: %q, %v", name, got, err)
		}
	}
	if got, err := s.Outcome(t.Context(), "abcdef"); err != nil || string(got) != "made by abcdef" {
		t.Errorf("the outcome: %q, %v", got, err)
	}
	if got, err := s.Outcome(t.Context(), "empty"); err != nil || got != nil {
		t.Errorf("the outcome of a build without one: %q, %v", got, err)
	}
	if err := s.Delete("abcdef"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Outcome(t.Context(), "abcdef"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the outcome of a build that was forgotten: %q, %v", got, err)
	}
}
