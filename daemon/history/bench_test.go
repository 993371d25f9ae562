package history

import (
	"path/filepath"
	"strconv"
	"testing"
)

// BenchmarkBuild is what a build pays for being remembered.
func BenchmarkBuild(b *testing.B) {
	s, err := Open(b.Context(), Options{Root: filepath.Join(b.TempDir(), "h"), MaxEntries: UsualEntries})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	n := 0
	for b.Loop() {
		n++
		build, err := s.Begin(Start{Ref: strconv.Itoa(n)})
		if err != nil {
			b.Fatal(err)
		}
		story(build, strconv.Itoa(n))
		if err := build.End(b.Context(), nil, nil); err != nil {
			b.Fatal(err)
		}
	}
}
