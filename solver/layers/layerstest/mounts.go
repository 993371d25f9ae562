package layerstest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/layers"
)

var mountCases = map[string]func(*Bench){
	"metadata":                     metadata,
	"hard links":                   hardLinks,
	"stacking":                     stacking,
	"whiteouts and opaques":        whiteouts,
	"new directories hide nothing": newDirectories,
	"nothing":                      nothing,
	"one layer twice":              twice,
	"many layers":                  manyLayers,
	"too many layers":              tooManyLayers,
	"read-only":                    readOnly,
	"remote layer":                 composeRemote,
	"tree equals mount":            treeEqualsMount,
	"tar":                          exactTar,
}

func metadata(b *Bench) {
	long := strings.Repeat("n", 255)
	odd := time.Date(1969, 12, 31, 23, 59, 58, 123456789, time.UTC)
	r := b.Import(
		&tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o751, Uid: 7},
		Dir("tmp", 0o1777),
		&tar.Header{Typeflag: tar.TypeDir, Name: "home/", Mode: 0o2750, Uid: 1000, Gid: 100, ModTime: odd},
		File{&tar.Header{Typeflag: tar.TypeReg, Name: "su", Mode: 0o4755, Uid: 2_000_000_000, Gid: 5, ModTime: odd}, "setuid"},
		File{&tar.Header{Typeflag: tar.TypeReg, Name: "cap", Mode: 0o755, PAXRecords: map[string]string{
			"SCHILY.xattr.user.color": "red\x00blue", "SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		}}, "x"},
		Text(long, "long name"), Text("näme\nwith newline", "odd name"), Text("empty", ""),
		Text("big", strings.Repeat("0123456789abcdef", 1<<16)),
		Link("link", "home/../su"), Link("dangling", "/nowhere"), Node("null", 1, 3),
		&tar.Header{Typeflag: tar.TypeFifo, Name: "pipe", Mode: 0o622},
	)
	got := b.Snapshot(r)
	wants := map[string]string{
		".":     "40751 7:0 981173106.000000000",
		"tmp":   "41777 0:0 981173106.000000000",
		"home":  "42750 1000:100 -2.123456789",
		"su":    "104755 2000000000:5 -2.123456789 6 ",
		long:    "100644 0:0 981173106.000000000 9 ",
		"empty": "100644 0:0 981173106.000000000 0 ",
		"link":  "120777 0:0 981173106.000000000 -> home/../su",
		"null":  "20620 0:0 981173106.000000000 1,3",
		"pipe":  "10622 0:0 981173106.000000000",
	}
	for name, want := range wants {
		if !strings.HasPrefix(got[name], want) {
			b.Errorf("%s\n got %s\nwant %s", name, got[name], want)
		}
	}
	if want := `user.color="red\x00blue"`; !strings.Contains(got["cap"], want) || !strings.Contains(got["cap"], "security.capability") {
		b.Errorf("cap: got %s, want %s and a capability", got["cap"], want)
	}
	if n := len(got); n != 13 {
		b.Errorf("%d names, want 13: %v", n, got)
	}
}

func hardLinks(b *Bench) {
	r := b.Import(Text("a", "one"), Dir("d", 0o755), HardLink("d/b", "a"), HardLink("c", "a"))
	got := b.Snapshot(r)
	if !strings.HasSuffix(got["c"], "= a") || !strings.HasSuffix(got["d/b"], "= a") {
		b.Errorf("not one file: %v", got)
	}
	up := b.Step(r, func(root string) { b.Write(filepath.Join(root, "d/b"), "two") })
	b.View(b.Stack(r, up), func(root string) {
		data, err := os.ReadFile(filepath.Join(root, "d/b"))
		b.OK(err)
		if string(data) != "two" {
			b.Errorf("d/b holds %q", data)
		}
	})
}

func stacking(b *Bench) {
	low := b.Import(Dir("d", 0o700), Text("d/same", "low"), Text("d/low", "low"), Text("file", "low"), Dir("gone", 0o755))
	high := b.Import(Dir("d", 0o755), Text("d/same", "high"), Text("d/high", "high"), Dir("file", 0o755), Text("gone", "file now"))
	b.View(b.Stack(low, high), func(root string) {
		for name, want := range map[string]string{"d/same": "high", "d/low": "low", "d/high": "high", "gone": "file now"} {
			data, err := os.ReadFile(filepath.Join(root, name))
			if err != nil || string(data) != want {
				b.Errorf("%s: got %q, %v; want %q", name, data, err, want)
			}
		}
		if info, err := os.Stat(filepath.Join(root, "file")); err != nil || !info.IsDir() {
			b.Errorf("file is no directory: %v", err)
		}
		if info, err := os.Stat(filepath.Join(root, "d")); err != nil || info.Mode().Perm() != 0o755 {
			b.Errorf("d: %v %v", info, err)
		}
	})
}

func whiteouts(b *Bench) {
	low := b.Import(Dir("d", 0o755), Text("d/a", "1"), Text("d/b", "1"), Dir("o", 0o755), Text("o/x", "1"), Text("top", "1"))
	high := b.Import(Dir("d", 0o755), Whiteout("d/", "a"), Dir("o", 0o755), Whiteout("o/", ".wh..opq"), Text("o/y", "2"), Whiteout("", "top"))
	got := b.Snapshot(b.Stack(low, high))
	names(b, got, ".", "d", "d/b", "o", "o/y")
}

func names(b *Bench, got map[string]string, want ...string) {
	b.Helper()
	for _, w := range want {
		if _, ok := got[w]; !ok {
			b.Errorf("%s is not there", w)
		}
	}
	if len(got) != len(want) {
		b.Errorf("got %v, want %v", got, want)
	}
}

// newDirectories: what a step makes says nothing about what it has not seen in other layers, also where the kernel marks it.
func newDirectories(b *Bench) {
	low := b.Import(Dir("old", 0o755), Text("old/x", "1"), Dir("old/both", 0o755), Text("old/both/y", "1"), Text("old/both/z", "1"),
		Dir("old/gone", 0o755), Text("old/gone/x", "1"), Text("file", "1"))
	made := b.Step(low, func(root string) {
		for _, dir := range []string{"new", "new/sub"} {
			if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
				b.Fatal(err)
			}
		}
		b.Write(filepath.Join(root, "new/sub/f"), "f")
		for _, name := range []string{"old", "file"} {
			if err := errors.Join(os.RemoveAll(filepath.Join(root, name)), os.Mkdir(filepath.Join(root, name), 0o755)); err != nil {
				b.Fatal(err)
			}
		}
		b.OK(os.Mkdir(filepath.Join(root, "old/both"), 0o755))
		b.Write(filepath.Join(root, "old/both/y"), "2")
	})
	names(b, b.Snapshot(made), ".", "file", "new", "new/sub", "new/sub/f", "old", "old/both", "old/both/y")
	t, err := b.S.LayerTree(b.Context(), made, len(made.IDs())-1)
	if err != nil {
		b.Fatal(err)
	}
	for _, path := range []string{"new", "new/sub", "old", "old/both", "file"} {
		if e, err := t.Stat(b.Context(), path); err != nil || e.Opaque {
			b.Errorf("%s: opaque %v, %v", path, e.Opaque, err)
		}
	}
	// Laid over another stack, both show what that has, but for what the step saw and left out.
	other := b.Import(Dir("new", 0o755), Text("new/other", "1"), Dir("old", 0o755), Text("old/other", "1"), Text("old/x", "2"),
		Dir("old/both", 0o755), Text("old/both/z", "2"), Text("old/both/other", "1"))
	top := b.Owned(b.S.Slice(made, len(made.IDs())-1, len(made.IDs())))
	names(b, b.Snapshot(b.Stack(other, top)), ".", "file", "new", "new/other", "new/sub", "new/sub/f", "old", "old/other",
		"old/both", "old/both/y", "old/both/other")
}

func nothing(b *Bench) {
	scratch := b.Owned(b.S.Scratch())
	names(b, b.Snapshot(scratch), ".")
	empty := b.Step(scratch, func(string) {})
	if yes, err := b.S.IsEmpty(b.Context(), empty, 0); err != nil || !yes {
		b.Errorf("is empty: %v %v", yes, err)
	}
	names(b, b.Snapshot(empty), ".")
	made := b.Step(b.Stack(scratch, empty), func(root string) { b.Write(filepath.Join(root, "x"), "x") })
	names(b, b.Snapshot(made), ".", "x")
}

func twice(b *Bench) {
	a := b.Import(Text("a", "a"), Text("same", "a"))
	c := b.Import(Text("same", "c"), Whiteout("", "a"))
	got := b.Snapshot(b.Stack(a, c, a))
	names(b, got, ".", "a", "same")
	if want := b.Snapshot(a)["same"]; got["same"] != want {
		b.Errorf("same: got %s, want %s", got["same"], want)
	}
}

func manyLayers(b *Bench) {
	var stack []*layers.Ref
	for i := range 130 {
		stack = append(stack, b.Import(Text(fmt.Sprintf("f%03d", i), "x"), Text("same", fmt.Sprint(i))))
	}
	b.View(b.Stack(stack...), func(root string) {
		found, err := os.ReadDir(root)
		b.OK(err)
		data, err := os.ReadFile(filepath.Join(root, "same"))
		b.OK(err)
		if len(found) != 131 || string(data) != "129" {
			b.Errorf("%d names, same is %s", len(found), data)
		}
	})
}

func tooManyLayers(b *Bench) {
	base := b.Import(Text("x", "x"))
	stack := b.Owned(b.S.Scratch())
	for i := range 520 {
		u, err := b.S.NewUpper(b.Context())
		b.OK(err)
		if i == 0 {
			m, err := b.S.Compose(b.Context(), base, u)
			b.OK(err)
			b.Write(filepath.Join(m.Path(), "y"), "y")
			b.OK(m.Close())
		}
		sealed, err := b.S.Seal(b.Context(), u, layers.ImportOptions{})
		b.OK(err)
		next := b.S.Stack(stack, b.Owned(sealed))
		b.OK(stack.Release())
		stack = b.Owned(next)
	}
	names(b, b.Snapshot(stack), ".", "y") // all but one are empty
	var deep []*layers.Ref
	for i := range 500 {
		deep = append(deep, b.Import(Text(fmt.Sprint(i), "x")))
	}
	_, err := b.S.Compose(b.Context(), b.Stack(deep...), nil)
	var tooDeep *layers.StackTooDeepError
	if !errors.As(err, &tooDeep) {
		b.Errorf("got %v", err)
	}
}

func readOnly(b *Bench) {
	b.View(b.Import(Text("x", "x")), func(root string) {
		if err := os.WriteFile(filepath.Join(root, "y"), nil, 0o600); err == nil {
			b.Error("could be written to")
		}
	})
}

func composeRemote(b *Bench) {
	_, diffID := Tar(b, Text("x", "x"))
	r, err := b.S.AddRemote(b.Context(), layers.RemoteBlob{Ref: "r", DiffID: diffID, Descriptor: ocispecs.Descriptor{Digest: digest.FromString("z"), Size: 1}})
	b.OK(err)
	b.Owned(r)
	if _, err := b.S.Compose(b.Context(), r, nil); !errors.Is(err, layers.ErrNotLocal) {
		b.Errorf("compose: %v", err)
	}
	if _, err := b.S.Tree(b.Context(), r); !errors.Is(err, layers.ErrNotLocal) {
		b.Errorf("tree: %v", err)
	}
	if _, _, err := b.S.Tar(b.Context(), r, 0); !errors.Is(err, layers.ErrNotLocal) {
		b.Errorf("tar: %v", err)
	}
}

// treeEqualsMount compares what is read in user space with what the kernel shows.
func treeEqualsMount(b *Bench) {
	low := b.Import(Dir("d", 0o711), Text("d/a", "1"), Dir("o", 0o755), Text("o/x", "1"), Link("l", "d"))
	mid := b.Import(Text("d/b", "2"), Whiteout("d/", "a"), Dir("o", 0o700), Whiteout("o/", ".wh..opq"))
	top := b.Step(b.Stack(low, mid), func(root string) {
		b.OK(os.Mkdir(filepath.Join(root, "new"), 0o755))
		b.OK(os.Remove(filepath.Join(root, "d/b")))
		b.OK(os.RemoveAll(filepath.Join(root, "o")))
	})
	r := b.Stack(low, mid, top)
	tree, err := b.S.Tree(b.Context(), r)
	b.OK(err)
	b.View(r, func(root string) {
		b.OK(filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name, _ := filepath.Rel(root, path)
			if name == "." {
				name = ""
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			e, err := tree.Stat(context.Background(), name)
			if err != nil {
				return err
			}
			if !e.ModTime.Equal(info.ModTime()) || os.FileMode(e.Mode&0o777) != info.Mode().Perm() {
				b.Errorf("%s: tree has %o %v, mount %v %v", name, e.Mode, e.ModTime, info.Mode(), info.ModTime())
			}
			if info.IsDir() {
				want, err := os.ReadDir(path)
				if err != nil {
					return err
				}
				got, err := tree.ReadDir(context.Background(), name)
				if err != nil || len(got) != len(want) {
					b.Errorf("%s: tree lists %v, %v; mount %v", name, got, err, want)
				}
			}
			return nil
		}))
	})
}

func exactTar(b *Bench) {
	data, _ := Tar(b, Text("a", "1"), Text("b", "2"))
	data = append(data, make([]byte, 1<<15)...) // what tar pads with
	diffID := digest.FromBytes(data)
	r, err := b.S.Import(b.Context(), bytes.NewReader(data), layers.ImportOptions{Want: diffID})
	b.OK(err)
	b.Owned(r)
	t, size, err := b.S.Tar(b.Context(), r, 0)
	b.OK(err)
	defer func() { b.OK(t.Close()) }()
	got, err := io.ReadAll(t)
	b.OK(err)
	if !bytes.Equal(got, data) || size != int64(len(data)) {
		b.Errorf("%d bytes, size %d, want %d", len(got), size, len(data))
	}
	if r.IDs()[0] != layers.ID(diffID) {
		b.Errorf("id %s, want %s", r.IDs()[0], diffID)
	}
	_, err = b.S.Import(b.Context(), bytes.NewReader(data), layers.ImportOptions{Want: digest.FromString("other")})
	var mismatch *layers.DigestMismatchError
	if !errors.As(err, &mismatch) || mismatch.Got != diffID {
		b.Errorf("wrong digest: %v", err)
	}
}
