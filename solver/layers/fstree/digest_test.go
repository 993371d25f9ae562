package fstree

import (
	"errors"
	"io/fs"
	"slices"
	"testing"
	"time"
)

func TestDigest(t *testing.T) {
	t.Parallel()
	of := func(tree Tree, p string, o DigestOptions) string {
		t.Helper()
		d, err := Digest(t.Context(), tree, p, o)
		if err != nil {
			t.Fatal(err)
		}
		return d.String()
	}
	lines := []string{"d/", "d/x 1", "d/s -> x", "e/", "e/x 1", "e/s -> x", "y 1", "z -> d"}
	tree := layer(lines...)
	whole := of(tree, "", DigestOptions{})
	if of(View(tree), "", DigestOptions{}) != whole {
		t.Error("a view is another tree")
	}
	if of(tree, "d", DigestOptions{}) != of(tree, "e", DigestOptions{}) || of(tree, "d/x", DigestOptions{}) != of(tree, "y", DigestOptions{}) {
		t.Error("the name of the whole counts")
	}
	if of(tree, "z", DigestOptions{Follow: true}) != of(tree, "d", DigestOptions{}) || of(tree, "z", DigestOptions{}) == of(tree, "d", DigestOptions{}) {
		t.Error("following")
	}
	for what, change := range map[string]func(fake){
		"content": func(f fake) { e := f["y"]; e.Linkname = "2"; f["y"] = e },
		"mode":    func(f fake) { e := f["y"]; e.Mode |= 0o111; f["y"] = e },
		"owner":   func(f fake) { e := f["d"]; e.GID = 1; f["d"] = e },
		"target":  func(f fake) { e := f["z"]; e.Linkname = "e"; f["z"] = e },
		"xattr":   func(f fake) { e := f["y"]; e.Xattrs = map[string]string{"user.a": ""}; f["y"] = e },
		"name":    func(f fake) { e := f["y"]; e.Path = "yy"; delete(f, "y"); f["yy"] = e },
		"gone":    func(f fake) { delete(f, "y") },
	} {
		c := layer(lines...)
		change(c)
		if of(c, "", DigestOptions{}) == whole {
			t.Errorf("%s does not count", what)
		}
	}
	c := layer(lines...)
	e := c["y"]
	e.ModTime, e.Hardlink = time.Unix(99, 0), "d/x"
	c["y"] = e
	if of(c, "", DigestOptions{}) != whole {
		t.Error("times or links count")
	}
	if of(tree, "[de]", DigestOptions{Wildcard: true}) == of(tree, "d", DigestOptions{Wildcard: true}) {
		t.Error("wildcard")
	}
	if _, err := Digest(t.Context(), tree, "n", DigestOptions{}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if a, b := of(tree, "n*", DigestOptions{Wildcard: true}), of(tree, "q*", DigestOptions{Wildcard: true}); a != b {
		t.Error("nothing is not nothing")
	}
}

func TestSelect(t *testing.T) {
	t.Parallel()
	tree := layer("a/", "a/b/", "a/b/c.go 1", "a/b/d.txt 1", "a/e/", "a/e/f.txt 1", "g.go 1")
	for _, tt := range []struct {
		root string
		o    DigestOptions
		want []string
	}{
		{"", DigestOptions{}, []string{"", "a", "a/b", "a/b/c.go", "a/b/d.txt", "a/e", "a/e/f.txt", "g.go"}},
		{"", DigestOptions{Include: []string{"**/*.go"}}, []string{"", "a", "a/b", "a/b/c.go", "g.go"}},
		{"", DigestOptions{Include: []string{"/a/b"}}, []string{"", "a", "a/b", "a/b/c.go", "a/b/d.txt"}},
		{"", DigestOptions{Exclude: []string{"a"}}, []string{"", "g.go"}},
		{"", DigestOptions{Exclude: []string{"a", "!a/e/f.txt"}}, []string{"", "a", "a/e", "a/e/f.txt", "g.go"}},
		{"", DigestOptions{Include: []string{"a"}, Exclude: []string{"**/*.txt"}}, []string{"", "a", "a/b", "a/b/c.go", "a/e"}},
		{"a", DigestOptions{Include: []string{"e"}}, []string{"a", "a/e", "a/e/f.txt"}},
	} {
		var got []string
		err := Select(t.Context(), tree, tt.root, tt.o, func(e Entry) error {
			got = append(got, e.Path)
			return nil
		})
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%q %+v: %q, %v, want %q", tt.root, tt.o, got, err, tt.want)
		}
	}
}
