package fstree

import "testing"

func TestView(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		layers []Tree
		want   []string
	}{
		{"none", nil, nil},
		{"one", []Tree{layer("a/", "a/x 1", "b whiteout")}, []string{"a/", "a/x 1"}},
		{"file over file", []Tree{layer("a 1"), layer("a 2")}, []string{"a 2"}},
		{"merged", []Tree{layer("a/", "a/x 1", "a/y 1"), layer("a/ 700", "a/x 2", "a/z 2")}, []string{"a/ 700", "a/x 2", "a/y 1", "a/z 2"}},
		{"whiteout", []Tree{layer("a/", "a/x 1"), layer("a whiteout")}, nil},
		{"whiteout, then again", []Tree{layer("a/", "a/x 1"), layer("a whiteout"), layer("a/", "a/y 3")}, []string{"a/", "a/y 3"}},
		{"opaque", []Tree{layer("a/", "a/x 1"), layer("a/ opaque", "a/y 2"), layer("a/", "a/z 3")}, []string{"a/", "a/y 2", "a/z 3"}},
		{"file over directory", []Tree{layer("a/", "a/x 1"), layer("a 2")}, []string{"a 2"}},
		{"directory over file over directory", []Tree{layer("a/", "a/x 1"), layer("a 2"), layer("a/", "a/y 3")}, []string{"a/", "a/y 3"}},
		{"implied", []Tree{layer("a/ 1777", "a/x 1"), layer("a/ implied", "a/y 2")}, []string{"a/ 1777", "a/x 1", "a/y 2"}},
		{"implied and opaque", []Tree{layer("a/ 1777", "a/x 1"), layer("a/ implied opaque", "a/y 2")}, []string{"a/ 1777", "a/y 2"}},
		{"implied over a whiteout", []Tree{layer("a/ 1777"), layer("a whiteout"), layer("a/ implied", "a/y 2")}, []string{"a/ implied", "a/y 2"}},
		{"implied only", []Tree{layer("a/ implied"), layer("a/ implied", "a/y 2")}, []string{"a/ implied", "a/y 2"}},
		{"opaque root", []Tree{layer("a 1"), fake{"": {Mode: ModeDir | 0o755, Opaque: true}, "b": layer("b 2")["b"]}}, []string{"b 2"}},
		{"link", []Tree{layer("a 1", "b = a"), layer("c 2")}, []string{"a 1", "b = a", "c 2"}},
		{"link to what is hidden", []Tree{layer("a 1", "b = a"), layer("a 2")}, []string{"a 2", "b 1"}},
		{"link to what is gone", []Tree{layer("d/", "d/a 1", "e = d/a"), layer("d whiteout")}, []string{"e 1"}},
		{"nested", []Tree{View(layer("a 1", "b 1"), layer("a whiteout")), layer("c 3")}, []string{"b 1", "c 3"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v := View(tt.layers...)
			equal(t, "walk", lines(t, v), tt.want)
			equal(t, "walk again", lines(t, v), tt.want)
		})
	}
}

func TestSource(t *testing.T) {
	t.Parallel()
	in := layer("a/", "z 1", "a/y = z", "b = z")
	equal(t, "links", drain(t, NewSource(in)), []string{"a/", "a/y 1", "b = a/y", "z = a/y"})
	equal(t, "sub", drain(t, NewSource(Sub(layer("d/", "d/a 1", "d/b = d/a", "e = d/a"), "d"))), []string{"a 1", "b = a"})
	equal(t, "sub without the first name", drain(t, NewSource(Sub(layer("a 1", "d/", "d/b = a"), "d"))), []string{"b 1"})
	equal(t, "empty", drain(t, NewSource(Empty())), nil)
}

func TestCompare(t *testing.T) {
	t.Parallel()
	order := []string{"", "a", "a/x", "a/x/y", "a!", "a.", "a.b", "ab", "b"}
	for i, a := range order {
		for j, b := range order {
			got := Compare(a, b)
			if got < 0 != (i < j) || got > 0 != (i > j) {
				t.Errorf("%q and %q: %d", a, b, got)
			}
		}
	}
}
