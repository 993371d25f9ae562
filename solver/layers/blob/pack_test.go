package blob

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// list is a source of given entries, with data for the files.
type list struct {
	es   []fstree.Entry
	data string
	err  error // at the end
}

func (l *list) Next(context.Context) (fstree.Entry, func(context.Context) (io.ReadCloser, error), error) {
	if len(l.es) == 0 {
		if l.err != nil {
			return fstree.Entry{}, nil, l.err
		}
		return fstree.Entry{}, nil, io.EOF
	}
	e := l.es[0]
	l.es = l.es[1:]
	if !e.IsRegular() || e.Hardlink != "" {
		return e, nil, nil
	}
	return e, func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(l.data)), nil }, nil
}

func reg(p string, size int64) fstree.Entry {
	return fstree.Entry{Path: p, Mode: fstree.ModeRegular | 0o644, Size: size}
}

// TestPackDiffID pins the bytes of the canonical tar: who changes them changes the name of every layer.
func TestPackDiffID(t *testing.T) {
	t.Parallel()
	l := &list{data: "data", es: []fstree.Entry{
		{Path: "", Mode: fstree.ModeDir | 0o755},
		{Path: "d", Mode: fstree.ModeDir | 0o700, Opaque: true, UID: 3_000_000_000, ModTime: time.Unix(-2, 5e8)},
		{Path: "d/w", Whiteout: true},
		{Path: "d/ü", Mode: fstree.ModeRegular | 0o4755, Size: 4, Xattrs: map[string]string{"user.b": "2", "user.a=": "1"}},
		{Path: "l", Mode: fstree.ModeRegular | 0o644, Hardlink: "d/ü"},
		{Path: "n", Mode: fstree.ModeChar | 0o600, Major: 1, Minor: 3},
		{Path: "s", Mode: fstree.ModeSymlink | 0o777, Linkname: strings.Repeat("t", 101)},
		{Path: "sock", Mode: fstree.ModeSocket | 0o777},
	}}
	f := create(t)
	sum, err := Pack(t.Context(), l, f)
	if err != nil {
		t.Fatal(err)
	}
	const want = "sha256:6eb7ba4c42425a93f656fd8618bc3de1ee98808fd516d8d7ab8e1944fc0ed6d2"
	if got := sum.DiffID.String(); got != want {
		t.Errorf("diffID is %s, was %s", got, want)
	}
	var names []string
	r := tar.NewReader(reopen(t, f, sum).Tar())
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	if got := strings.Join(names, " "); got != "./ d/ d/.wh..wh..opq d/.wh.w d/ü l n s" {
		t.Errorf("names: %s", got)
	}
}

func TestPackRefuses(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	for what, tt := range map[string]struct {
		src  *list
		want error
	}{
		"order":          {&list{es: []fstree.Entry{reg("b", 0), reg("a", 0)}}, ErrBadEntry},
		"twice":          {&list{es: []fstree.Entry{reg("a", 0), reg("a", 0)}}, ErrBadEntry},
		"unclean":        {&list{es: []fstree.Entry{reg("a//b", 0)}}, ErrUnsafePath},
		"up":             {&list{es: []fstree.Entry{reg("../b", 0)}}, ErrUnsafePath},
		"whiteout name":  {&list{es: []fstree.Entry{reg(".wh.b", 0)}}, ErrUnsafePath},
		"inside a file":  {&list{es: []fstree.Entry{reg("a", 0), reg("a/b", 0)}}, ErrBadEntry},
		"inside symlink": {&list{es: []fstree.Entry{{Path: "a", Mode: fstree.ModeSymlink, Linkname: "b"}, reg("a/b", 0)}}, ErrBadEntry},
		"link":           {&list{es: []fstree.Entry{{Path: "a", Mode: fstree.ModeRegular, Hardlink: "b"}}}, ErrBadEntry},
		"short":          {&list{es: []fstree.Entry{reg("a", 5)}, data: "1234"}, ErrBadEntry},
		"long":           {&list{es: []fstree.Entry{reg("a", 3)}, data: "1234"}, ErrBadEntry},
		"short and big":  {&list{es: []fstree.Entry{reg("a", 1<<20)}, data: "1234"}, ErrBadEntry},
		"long and big":   {&list{es: []fstree.Entry{reg("a", 1<<20)}, data: strings.Repeat("x", 1<<20+1)}, ErrBadEntry},
		"source":         {&list{es: []fstree.Entry{reg("a", 4)}, data: "1234", err: boom}, boom},
	} {
		if _, err := Pack(t.Context(), tt.src, create(t)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", what, err, tt.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Pack(ctx, &list{es: []fstree.Entry{reg("a", 4)}, data: "1234"}, create(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestPackMany is long enough for everything that is read ahead to be under way.
func TestPackMany(t *testing.T) {
	t.Parallel()
	_, b := index(t, makeTar(t, numbered(1000)...))
	want := repack(t, b.Tree())
	for range 3 {
		got := repack(t, b.Tree())
		if got.Summary() != want.Summary() {
			t.Errorf("%+v, before %+v", got.Summary(), want.Summary())
		}
	}
	var blobs [2]bytes.Buffer
	for i, b := range []*Blob{b, want} {
		if _, err := io.Copy(&blobs[i], b.Tar()); err != nil {
			t.Fatal(err)
		}
	}
}
