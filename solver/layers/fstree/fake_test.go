package fstree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// fake is a tree of one layer, by path. Its directories are those in it; the root is implied unless it is there.
type fake map[string]Entry

// layer makes a fake of lines: "d/" a directory, "d/ implied", "d/ opaque", "f text" a file, "s -> target", "w whiteout",
// "h = first".
func layer(lines ...string) fake {
	f := fake{}
	for _, l := range lines {
		name, rest, _ := strings.Cut(l, " ")
		e := Entry{Path: strings.TrimSuffix(name, "/"), Mode: ModeRegular | 0o644, ModTime: time.Unix(1, 0)}
		switch {
		case strings.HasSuffix(name, "/"):
			e.Mode = ModeDir | 0o755
			e.Implied, e.Opaque = strings.Contains(rest, "implied"), strings.Contains(rest, "opaque")
			if _, err := fmt.Sscanf(rest, "%o", &e.Mode); err == nil {
				e.Mode |= ModeDir
			}
		case strings.HasPrefix(rest, "-> "):
			e.Mode, e.Linkname = ModeSymlink|0o777, rest[3:]
		case rest == "whiteout":
			e = Entry{Path: name, Whiteout: true}
		case strings.HasPrefix(rest, "= "):
			e.Hardlink = rest[2:]
			e.Size, e.Linkname = f[e.Hardlink].Size, f[e.Hardlink].Linkname
		default:
			e.Size, e.Linkname = int64(len(rest)), rest // the content, until read
		}
		f[e.Path] = e
	}
	return f
}

func (f fake) at(p string) (Entry, bool) {
	e, ok := f[p]
	if !ok && p == "" {
		return impliedRoot(), true
	}
	if e.IsRegular() {
		e.Linkname = ""
	}
	return e, ok
}

func (f fake) Stat(_ context.Context, p string) (Entry, error) {
	e, ok := f.at(p)
	if !ok {
		return Entry{}, notExist("stat", p)
	}
	return e, nil
}

func (f fake) ReadDir(_ context.Context, p string) ([]Entry, error) {
	if e, ok := f.at(p); !ok {
		return nil, notExist("readdir", p)
	} else if !e.IsDir() {
		return nil, pathError("readdir", p, ErrNotDir)
	}
	var es []Entry
	for q := range f {
		if q != "" && parent(q) == p {
			e, _ := f.at(q)
			es = append(es, e)
		}
	}
	slices.SortFunc(es, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	return es, nil
}

func (f fake) Open(ctx context.Context, p string) (Content, error) {
	if e, ok := f.at(p); !ok || !e.IsRegular() {
		return nil, notExist("open", p)
	}
	return Bytes([]byte(f[p].Linkname))(ctx)
}

// lines is the reverse of layer.
func lines(tb testing.TB, t Tree) []string {
	tb.Helper()
	var out []string
	err := Walk(tb.Context(), t, "", func(e Entry) error {
		if e.Path == "" {
			return nil
		}
		out = append(out, line(tb, e, FromTree(t, e.Path)))
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

func line(tb testing.TB, e Entry, open OpenFunc) string {
	tb.Helper()
	l := e.Path
	switch {
	case e.Whiteout:
		return l + " whiteout"
	case e.IsDir():
		l += "/"
		if e.Mode != ModeDir|0o755 {
			l += fmt.Sprintf(" %o", e.Mode&0o7777)
		}
	case e.IsSymlink():
		l += " -> " + e.Linkname
	case e.Hardlink != "":
		l += " = " + e.Hardlink
	default:
		c, err := open(tb.Context())
		if err != nil {
			tb.Fatal(err)
		}
		r := NewReader(c)
		b, err := io.ReadAll(r)
		if err != nil || int64(len(b)) != e.Size {
			tb.Fatalf("%s: %d bytes of %d, %v", e.Path, len(b), e.Size, err)
		}
		if err := r.Close(); err != nil {
			tb.Fatal(err)
		}
		l += " " + string(b)
	}
	if e.Opaque {
		l += " opaque"
	}
	if e.Implied {
		l += " implied"
	}
	return l
}

// drain lists a source, and holds it to its order.
func drain(tb testing.TB, s Source) []string {
	tb.Helper()
	var out []string
	last, first := "", true
	for {
		e, open, err := s.Next(tb.Context())
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			tb.Fatal(err)
		}
		if !first && Compare(last, e.Path) >= 0 {
			tb.Errorf("%q comes after %q", e.Path, last)
		}
		last, first = e.Path, false
		if (open != nil) != (e.IsRegular() && e.Hardlink == "") {
			tb.Errorf("%q: opens: %v", e.Path, open != nil)
		}
		if e.Path == "" {
			continue
		}
		l := e.Path
		if open == nil {
			out = append(out, line(tb, e, nil))
			continue
		}
		r, err := open(tb.Context())
		if err != nil {
			tb.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			tb.Fatal(err)
		}
		if err := r.Close(); err != nil {
			tb.Fatal(err)
		}
		out = append(out, l+" "+string(b))
	}
}

func equal(tb testing.TB, what string, got, want []string) {
	tb.Helper()
	if !slices.Equal(got, want) {
		tb.Errorf("%s:\ngot  %q\nwant %q", what, got, want)
	}
}
