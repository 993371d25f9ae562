package fstree

import (
	"errors"
	"io/fs"
	"testing"
)

// TestDelta checks three things at once: what the delta shows, what it changed, and that the change on the base is the same.
func TestDelta(t *testing.T) {
	t.Parallel()
	base := func() Tree { return View(layer("d/ 700", "d/e/", "d/e/x 1", "d/y 1", "f 1", "h 1", "i = h", "s -> d")) }
	all := []string{"d/ 700", "d/e/", "d/e/x 1", "d/y 1", "f 1", "h 1", "i = h", "s -> d"}
	dirEntry := func(p string) Entry { return Entry{Path: p, Mode: ModeDir | 0o755} }
	reg := func(p, body string) Entry { return Entry{Path: p, Mode: ModeRegular | 0o644, Size: int64(len(body))} }
	for _, tt := range []struct {
		name        string
		do          func(t *testing.T, d *Delta) error
		show, moved []string
	}{
		{"nothing", func(*testing.T, *Delta) error { return nil }, all, nil},
		{"new file", func(t *testing.T, d *Delta) error { return d.Put(t.Context(), reg("d/e/n", "2"), Bytes([]byte("2"))) },
			[]string{"d/ 700", "d/e/", "d/e/n 2", "d/e/x 1", "d/y 1", "f 1", "h 1", "i = h", "s -> d"}, []string{"d/ 700", "d/e/", "d/e/n 2"}},
		{"replace", func(t *testing.T, d *Delta) error { return d.Put(t.Context(), reg("f", "22"), Bytes([]byte("22"))) },
			[]string{"d/ 700", "d/e/", "d/e/x 1", "d/y 1", "f 22", "h 1", "i = h", "s -> d"}, []string{"f 22"}},
		{"remove", func(t *testing.T, d *Delta) error { return d.Remove(t.Context(), "d/y") },
			[]string{"d/ 700", "d/e/", "d/e/x 1", "f 1", "h 1", "i = h", "s -> d"}, []string{"d/ 700", "d/y whiteout"}},
		{"make and remove", func(t *testing.T, d *Delta) error {
			return errors.Join(d.Put(t.Context(), reg("d/n", ""), nil), d.Remove(t.Context(), "d/n"))
		}, all, nil},
		{"remove all and again", func(t *testing.T, d *Delta) error {
			return errors.Join(d.RemoveAll(t.Context(), "d"), d.MkdirAll(t.Context(), dirEntry("d/z")), d.RemoveAll(t.Context(), "none"))
		}, []string{"d/", "d/z/", "f 1", "h 1", "i = h", "s -> d"}, []string{"d/ opaque", "d/z/"}},
		{"file over directory", func(t *testing.T, d *Delta) error { return d.Put(t.Context(), reg("d", ""), nil) },
			[]string{"d ", "f 1", "h 1", "i = h", "s -> d"}, []string{"d "}},
		{"directory over file", func(t *testing.T, d *Delta) error { return d.Put(t.Context(), dirEntry("f"), nil) },
			[]string{"d/ 700", "d/e/", "d/e/x 1", "d/y 1", "f/", "h 1", "i = h", "s -> d"}, []string{"f/"}},
		{"file, then directory over directory", func(t *testing.T, d *Delta) error {
			return errors.Join(d.Put(t.Context(), reg("d", ""), nil), d.Put(t.Context(), dirEntry("d"), nil))
		}, []string{"d/", "f 1", "h 1", "i = h", "s -> d"}, []string{"d/ opaque"}},
		{"attributes of a directory", func(t *testing.T, d *Delta) error { return d.Put(t.Context(), dirEntry("d"), nil) },
			[]string{"d/", "d/e/", "d/e/x 1", "d/y 1", "f 1", "h 1", "i = h", "s -> d"}, []string{"d/"}},
		{"link", func(t *testing.T, d *Delta) error { return d.Link(t.Context(), "f", "d/l") },
			[]string{"d/ 700", "d/e/", "d/e/x 1", "d/l 1", "d/y 1", "f = d/l", "h 1", "i = h", "s -> d"}, []string{"d/ 700", "d/l 1", "f = d/l"}},
		{"link, first name gone", func(t *testing.T, d *Delta) error {
			return errors.Join(d.Link(t.Context(), "f", "d/l"), d.Link(t.Context(), "f", "z"), d.RemoveAll(t.Context(), "d"))
		}, []string{"f 1", "h 1", "i = h", "s -> d", "z = f"}, []string{"d whiteout", "f 1", "z = f"}},
		{"first name replaced", func(t *testing.T, d *Delta) error { return d.Put(t.Context(), reg("h", "2"), Bytes([]byte("2"))) },
			[]string{"d/ 700", "d/e/", "d/e/x 1", "d/y 1", "f 1", "h 2", "i 1", "s -> d"}, []string{"h 2"}},
		{"update", func(t *testing.T, d *Delta) error {
			return d.Update(t.Context(), "d/e", func(e *Entry) { e.Mode = 0o711 })
		}, []string{"d/ 700", "d/e/ 711", "d/e/x 1", "d/y 1", "f 1", "h 1", "i = h", "s -> d"}, []string{"d/ 700", "d/e/ 711"}},
		{"all gone", func(t *testing.T, d *Delta) error { return d.RemoveAll(t.Context(), "") },
			nil, []string{"d whiteout", "f whiteout", "h whiteout", "i whiteout", "s whiteout"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := base()
			d := NewDelta(b)
			if err := tt.do(t, d); err != nil {
				t.Fatal(err)
			}
			equal(t, "shows", lines(t, d), tt.show)
			equal(t, "changes", drain(t, d.Changes()), tt.moved)
			equal(t, "changes on the base", lines(t, View(b, layer(tt.moved...))), tt.show)
			if d.IsEmpty() != (len(tt.moved) == 0) {
				t.Errorf("empty: %v", d.IsEmpty())
			}
		})
	}
}

func TestDeltaErrors(t *testing.T) {
	t.Parallel()
	d := NewDelta(layer("d/", "d/x 1", "f 1"))
	ctx := t.Context()
	for what, tt := range map[string]struct{ got, want error }{
		"put without parent":   {d.Put(ctx, Entry{Path: "n/x", Mode: ModeRegular}, nil), fs.ErrNotExist},
		"put inside a file":    {d.Put(ctx, Entry{Path: "f/x", Mode: ModeRegular}, nil), ErrNotDir},
		"put without content":  {d.Put(ctx, Entry{Path: "x", Mode: ModeRegular, Size: 1}, nil), fs.ErrInvalid},
		"put over the root":    {d.Put(ctx, Entry{Path: "", Mode: ModeRegular}, nil), ErrIsDir},
		"remove what is full":  {d.Remove(ctx, "d"), ErrNotEmpty},
		"remove what is not":   {d.Remove(ctx, "n"), fs.ErrNotExist},
		"mkdir what is there":  {d.Mkdir(ctx, Entry{Path: "d"}), fs.ErrExist},
		"mkdirall over a file": {d.MkdirAll(ctx, Entry{Path: "f/x"}), ErrNotDir},
		"link a directory":     {d.Link(ctx, "d", "e"), ErrIsDir},
		"link nothing":         {d.Link(ctx, "n", "e"), fs.ErrNotExist},
	} {
		if !errors.Is(tt.got, tt.want) {
			t.Errorf("%s: %v, want %v", what, tt.got, tt.want)
		}
	}
}
