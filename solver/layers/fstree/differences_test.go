package fstree

import (
	"errors"
	"testing"
	"time"
)

func TestDifferences(t *testing.T) {
	t.Parallel()
	later := func(f fake, path string, at int64) fake {
		e := f[path]
		e.ModTime = time.Unix(at, 0)
		f[path] = e
		return f
	}
	for _, tt := range []struct {
		name string
		a, b fake
		o    DifferenceOptions
		want []string
	}{
		{"the same", layer("a/", "a/x 1", "s -> t", "w whiteout"), layer("a/", "a/x 1", "s -> t", "w whiteout"), DifferenceOptions{}, nil},
		{"content", layer("a 1"), layer("a 2"), DifferenceOptions{}, []string{"/a: content"}},
		{"size", layer("a 1"), layer("a 22"), DifferenceOptions{}, []string{"/a: size 1, 2"}},
		{"names", layer("a 1", "c 1", "e/", "e/x 1"), layer("b 1", "c 1"), DifferenceOptions{}, []string{
			"/a: only in the first", "/b: only in the second", "/e: only in the first",
		}},
		{"type", layer("a 1"), layer("a/"), DifferenceOptions{}, []string{"/a: type file, directory"}},
		{"mode", layer("a/ 700", "a/x 1"), layer("a/ 755", "a/x 2"), DifferenceOptions{}, []string{"/a: mode 700, 755", "/a/x: content"}},
		{"symlink", layer("a -> b"), layer("a -> c"), DifferenceOptions{}, []string{"/a: link target b, c"}},
		{"hard link", layer("a 1", "b 1", "c = a"), layer("a 1", "b 1", "c = b"), DifferenceOptions{}, []string{"/c: hard link to /a, /b"}},
		{"whiteout", layer("a whiteout"), layer("a 1"), DifferenceOptions{}, []string{"/a: whiteout true, false"}},
		{"opaque", layer("a/ opaque"), layer("a/"), DifferenceOptions{}, []string{"/a: opaque true, false"}},
		{"xattrs", fake{"a": {Path: "a", Mode: ModeRegular, Xattrs: map[string]string{"user.a": "1", "user.b": "1"}}},
			fake{"a": {Path: "a", Mode: ModeRegular, Xattrs: map[string]string{"user.a": "2", "user.c": "1"}}}, DifferenceOptions{},
			[]string{"/a: xattrs user.a, user.b, user.c"}},
		{"time", layer("a 1"), later(layer("a 1"), "a", 5), DifferenceOptions{}, []string{"/a: mtime 1970-01-01T00:00:01Z, 1970-01-01T00:00:05Z"}},
		{"time that is clamped", later(layer("a 1"), "a", 7), later(layer("a 1"), "a", 5), DifferenceOptions{Latest: time.Unix(4, 0)}, nil},
		{"time before the latest", later(layer("a 1"), "a", 3), later(layer("a 1"), "a", 5), DifferenceOptions{Latest: time.Unix(4, 0)},
			[]string{"/a: mtime 1970-01-01T00:00:03Z, 1970-01-01T00:00:04Z"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			err := Differences(t.Context(), tt.a, tt.b, tt.o, func(d Difference) error {
				got = append(got, d.String())
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "differences", got, tt.want)
		})
	}
	enough := errors.New("enough")
	err := Differences(t.Context(), layer("a 1", "b 1"), layer("a 2", "b 2"), DifferenceOptions{}, func(Difference) error { return enough })
	if !errors.Is(err, enough) {
		t.Errorf("the error of who is told: %v", err)
	}
}
