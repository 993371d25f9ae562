package fstree

import (
	"errors"
	"io/fs"
	"slices"
	"testing"
)

func TestResolve(t *testing.T) {
	t.Parallel()
	tree := layer("usr/", "usr/lib/", "usr/lib/x 1", "lib -> usr/lib", "abs -> /usr", "up -> ../../usr", "loop -> loop", "dangling -> no/where",
		"f 1", "usr/rel -> ../f")
	for _, tt := range []struct {
		path   string
		follow bool
		want   string
		err    error
	}{
		{"", true, "", nil}, {"/", true, "", nil}, {"/usr/./lib/../lib/", true, "usr/lib", nil}, {"../../f", true, "f", nil},
		{"lib/x", false, "usr/lib/x", nil}, {"lib", false, "lib", nil}, {"lib", true, "usr/lib", nil}, {"lib/", false, "usr/lib", nil},
		{"abs/lib/x", true, "usr/lib/x", nil}, {"up/rel", true, "f", nil}, {"abs/rel", false, "usr/rel", nil}, {"lib/..", true, "usr", nil},
		{"loop", true, "", ErrLoop}, {"loop", false, "loop", nil}, {"loop/x", false, "", ErrLoop},
		{"f/x", true, "", ErrNotDir}, {"f/", true, "", ErrNotDir}, {"n", true, "", fs.ErrNotExist}, {"dangling", true, "", fs.ErrNotExist},
	} {
		got, err := Resolve(t.Context(), tree, tt.path, tt.follow)
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%q: %q, %v, want %q, %v", tt.path, got, err, tt.want, tt.err)
		}
	}
	for p, want := range map[string]string{
		"lib/n/m": "usr/lib/n/m", "n/../f": "f", "dangling": "no/where", "dangling/x": "no/where/x", "n/../../lib/y": "usr/lib/y",
	} {
		if got, err := ResolveMissing(t.Context(), tree, p, true); got != want || err != nil {
			t.Errorf("%q: %q, %v, want %q", p, got, err, want)
		}
	}
	if _, err := ResolveMissing(t.Context(), tree, "f/x", true); !errors.Is(err, ErrNotDir) {
		t.Error(err)
	}
}

func TestMatch(t *testing.T) {
	t.Parallel()
	tree := layer("a.txt 1", "b.txt 1", "d/", "d/c.txt 1", "e/", "e/c.txt 1", "l -> d", "dangling -> no")
	for pattern, want := range map[string][]string{
		"*.txt": {"a.txt", "b.txt"}, "/*/c.txt": {"d/c.txt", "e/c.txt"}, "l/*": {"d/c.txt"}, "n*": nil, "d": {"d"}, "dang*": nil, "[ab].txt": {"a.txt", "b.txt"},
		"": {""}, "d/n": nil,
	} {
		got, err := Match(t.Context(), tree, pattern, true)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v, want %q", pattern, got, err, want)
		}
	}
	if _, err := Match(t.Context(), tree, "[", true); err == nil {
		t.Error("bad pattern taken")
	}
}
