package ops

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/layers"
	"golang.org/x/sys/unix"
)

// fileCase is one file op on "base", which may also read "ctx".
type fileCase struct {
	name string
	base []file
	ctx  []file
	do   func(base, ctx llb.State) llb.State
	want []string // the tree, "now" for times of now; nil if err is set
	err  string
}

var at = llb.WithCreatedTime(day)

const dayText = "2020-01-02T03:04:05.000000678"

func TestFileActions(t *testing.T) {
	y := newYard(t, nil)
	for _, c := range []fileCase{
		{
			name: "mkdir",
			do: func(b, _ llb.State) llb.State {
				return b.File(llb.Mkdir("/a", 0o1755, at).Mkdir("/a", 0o700).Mkdir("/b/c", 0o700, llb.WithParents(true), llb.WithUIDGID(5, 6)))
			},
			want: []string{"a 040755 0:0 " + dayText, "b 040700 5:6 now", "b/c 040700 5:6 now"},
		},
		{
			name: "mkdir without the parent",
			do:   func(b, _ llb.State) llb.State { return b.File(llb.Mkdir("/b/c", 0o700)) },
			err:  "mkdir /b/c: no such file or directory",
		},
		{
			name: "mkdir through a symlink stays in the root",
			base: []file{{path: "l", mode: unix.S_IFLNK | 0o777, data: "../../deep"}},
			do:   func(b, _ llb.State) llb.State { return b.File(llb.Mkdir("/l/x", 0o755, llb.WithParents(true), at)) },
			want: []string{"deep 040755 0:0 " + dayText, "deep/x 040755 0:0 " + dayText, "l 120777 0:0 " + dayText + " -> ../../deep"},
		},
		{
			name: "mkdir over a file",
			base: []file{{path: "f"}},
			do:   func(b, _ llb.State) llb.State { return b.File(llb.Mkdir("/f/x", 0o755, llb.WithParents(true))) },
			err:  "mkdir /f/x",
		},
		{
			name: "mkfile replaces, through a symlink",
			base: []file{{path: "f", data: "old", uid: 9}, {path: "l", mode: unix.S_IFLNK | 0o777, data: "/f"}},
			do:   func(b, _ llb.State) llb.State { return b.File(llb.Mkfile("/l", 0o4755, []byte("new"), at)) },
			want: []string{"f 100755 0:0 " + dayText + ` "new"`, "l 120777 0:0 " + dayText + " -> /f"},
		},
		{
			name: "mkfile over a directory",
			base: []file{{path: "d/"}},
			do:   func(b, _ llb.State) llb.State { return b.File(llb.Mkfile("/d", 0o644, nil)) },
			err:  "mkfile /d: is a directory",
		},
		{
			name: "mkfile as the root",
			do:   func(b, _ llb.State) llb.State { return b.File(llb.Mkfile("/", 0o644, nil)) },
			err:  "mkfile /: is a directory",
		},
		{
			name: "symlink",
			do:   func(b, _ llb.State) llb.State { return b.File(llb.Symlink("/any/where", "/l", at)) },
			want: []string{"l 120777 0:0 " + dayText + " -> /any/where"},
		},
		{
			name: "symlink over a file",
			base: []file{{path: "l"}},
			do:   func(b, _ llb.State) llb.State { return b.File(llb.Symlink("x", "/l")) },
			err:  "symlink /l: file exists",
		},
		{
			name: "rm does not follow the last symlink",
			base: []file{{path: "d/"}, {path: "d/f"}, {path: "l", mode: unix.S_IFLNK | 0o777, data: "d"}},
			do:   func(b, _ llb.State) llb.State { return b.File(llb.Rm("/l")) },
			want: []string{"d 040755 0:0 " + dayText, "d/f 100644 0:0 " + dayText + ` ""`},
		},
		{
			name: "rm of a dangling symlink",
			base: []file{{path: "l", mode: unix.S_IFLNK | 0o777, data: "nowhere"}},
			do:   func(b, _ llb.State) llb.State { return b.File(llb.Rm("/l")) },
		},
		{
			name: "rm with a wildcard",
			base: []file{{path: "a1"}, {path: "a2/"}, {path: "a2/x"}, {path: "b"}},
			do:   func(b, _ llb.State) llb.State { return b.File(llb.Rm("/a*", llb.WithAllowWildcard(true))) },
			want: []string{"b 100644 0:0 " + dayText + ` ""`},
		},
		{
			name: "rm of what is not there",
			do:   func(b, _ llb.State) llb.State { return b.File(llb.Rm("/x")) },
			err:  "remove /x: no such file or directory",
		},
		{
			name: "rm of what may be missing",
			do:   func(b, _ llb.State) llb.State { return b.File(llb.Rm("/x", llb.WithAllowNotFound(true))) },
		},
		{
			name: "rm of the root",
			do:   func(b, _ llb.State) llb.State { return b.File(llb.Rm("/")) },
			err:  "the root cannot be removed",
		},
		{
			name: "a group is inherited from a setgid directory",
			base: []file{{path: "mail/", mode: unix.S_IFDIR | 0o2775, gid: 8}},
			do:   func(b, _ llb.State) llb.State { return b.File(llb.Mkfile("/mail/f", 0o600, nil, at)) },
			want: []string{"mail 042775 0:8 " + dayText, "mail/f 100600 0:8 " + dayText + ` ""`},
		},
		{
			name: "copy for a user by name",
			base: []file{{path: "etc/"}, {path: "etc/passwd", mode: unix.S_IFLNK | 0o777, data: "/real"},
				{path: "real", data: "root:x:0:0::/:\nweb:x:33:34::/:/bin/sh\n"}, {path: "etc/group", data: "www:x:80:\n"}},
			ctx: []file{{path: "f", uid: 1, gid: 1}},
			do: func(b, c llb.State) llb.State {
				return b.File(llb.Copy(c, "f", "/u", llb.WithUser("web")).Copy(c, "f", "/g", llb.WithUser("web:www")).Rm("/etc").Rm("/real"))
			},
			want: []string{"g 100644 33:80 " + dayText + ` ""`, "u 100644 33:34 " + dayText + ` ""`},
		},
		{
			name: "copy for nobody known",
			ctx:  []file{{path: "f"}},
			do:   func(b, c llb.State) llb.State { return b.File(llb.Copy(c, "f", "/f", llb.WithUser("web"))) },
			err:  "unable to find user web",
		},
		{
			name: "copy keeps capabilities, setuid and times",
			ctx:  []file{{path: "f", mode: 0o4755, data: "x", x: map[string]string{"security.capability": "\x01\x00\x00\x02", "user.a": "b"}}},
			do:   func(b, c llb.State) llb.State { return b.File(llb.Copy(c, "f", "/f")) },
			want: []string{"f 104755 0:0 " + dayText + ` security.capability="\x01\x00\x00\x02" user.a="b" "x"`},
		},
		{
			name: "copy of a directory over a file",
			base: []file{{path: "f"}},
			ctx:  []file{{path: "f/"}, {path: "f/x"}},
			do: func(b, c llb.State) llb.State {
				return b.File(llb.Copy(c, "/", "/", &llb.CopyInfo{CopyDirContentsOnly: true}))
			},
			err: "cannot copy to non-directory: /f",
		},
		{
			name: "copy of a file over a directory",
			base: []file{{path: "f/"}},
			ctx:  []file{{path: "f"}},
			do: func(b, c llb.State) llb.State {
				return b.File(llb.Copy(c, "/", "/", &llb.CopyInfo{CopyDirContentsOnly: true}))
			},
			err: "cannot replace to directory /f with file",
		},
		{
			name: "copy without the directory above",
			ctx:  []file{{path: "f"}},
			do:   func(b, c llb.State) llb.State { return b.File(llb.Copy(c, "f", "/new/dir/f")) },
			err:  "failed to stat /new/dir/f",
		},
		{
			name: "copy by an empty pattern",
			do: func(b, c llb.State) llb.State {
				return b.File(llb.Copy(c, "x*", "/", &llb.CopyInfo{AllowWildcard: true}))
			},
			err: "/x*: no such file or directory",
		},
		{
			name: "copy by a pattern that may be empty",
			do: func(b, c llb.State) llb.State {
				return b.File(llb.Copy(c, "x*", "/", &llb.CopyInfo{AllowWildcard: true, AllowEmptyWildcard: true}))
			},
		},
		{
			name: "copy from what was just made",
			do: func(b, _ llb.State) llb.State {
				return b.File(llb.Copy(llb.Scratch().File(llb.Mkfile("/in", 0o600, []byte("x"), at)), "/in", "/out"))
			},
			want: []string{"out 100600 0:0 " + dayText + ` "x"`},
		},
	} {
		t.Run(c.name, func(t *testing.T) { y.try(t, c) })
	}
}

func (y *yard) try(t *testing.T, c fileCase) {
	t.Helper()
	e := newEngine(t)
	e.src.set("base", c.base...)
	e.src.set("ctx", c.ctx...)
	now := time.Now()
	r, err := e.build(c.do(mem("base"), mem("ctx")), LoadOptions{})
	if c.err != "" {
		if err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("error %v, want %q in it", err, c.err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := e.list(r, now); !slices.Equal(got, c.want) {
		t.Errorf("got:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(c.want, "\n  "))
	}
}

// States that several actions and outputs read are each what they were when they were made.
func TestFileActionsBranch(t *testing.T) {
	y := newYard(t, nil)
	mk := func(p, data string) *pb.FileAction_Mkfile {
		return &pb.FileAction_Mkfile{Mkfile: &pb.FileActionMkFile{Path: p, Mode: 0o644, Data: []byte(data), Timestamp: day.UnixNano()}}
	}
	op := &pb.FileOp{Actions: []*pb.FileAction{
		{Input: 0, SecondaryInput: -1, Output: 0, Action: mk("/one", "1")},  // state 1
		{Input: 1, SecondaryInput: -1, Output: 1, Action: mk("/two", "2")},  // state 2, from 1
		{Input: 1, SecondaryInput: -1, Output: -1, Action: mk("/tri", "3")}, // state 3, from 1
		{Input: 3, SecondaryInput: 2, Output: 2, Action: &pb.FileAction_Copy{Copy: &pb.FileActionCopy{
			Src: "/two", Dest: "/from-two", Mode: -1, Timestamp: -1}}}, // state 4
		{Input: -1, SecondaryInput: 1, Output: 3, Action: &pb.FileAction_Copy{Copy: &pb.FileActionCopy{
			Src: "/", Dest: "/", DirCopyContents: true, Mode: -1, Timestamp: -1}}}, // state 5, from nothing
		{Input: 2, SecondaryInput: -1, Output: 4, Action: &pb.FileAction_Rm{Rm: &pb.FileActionRm{Path: "/base"}}},
	}}
	work, n, err := y.f.NewLoader(LoadOptions{}).fileOp(op, 1)
	if err != nil || n != 5 {
		t.Fatalf("%d outputs, %v", n, err)
	}
	base := y.result(file{path: "base", data: "b"}, file{path: "dir/"}, file{path: "dir/f"})
	defer y.closeOp(work)
	out, err := work.Run(t.Context(), &fakeCall{}, []solver.Result{base})
	if err != nil {
		t.Fatal(err)
	}
	defer y.release(out...)
	for i, want := range []string{"base dir dir/f one", "base dir dir/f one two", "base dir dir/f from-two one tri", "base dir dir/f one", "dir dir/f one two"} {
		var names []string
		for _, l := range y.list(out[i], time.Time{}) {
			names = append(names, l[:strings.Index(l, " ")])
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("output %d has %q, want %q", i, got, want)
		}
		wantLayers := 2
		if i == 3 {
			wantLayers = 1
		}
		if n := len(RefOf(out[i]).IDs()); n != wantLayers {
			t.Errorf("output %d has %d layers, want %d", i, n, wantLayers)
		}
	}
}

func compressions(t *testing.T, dt []byte) map[string][]byte {
	t.Helper()
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	if _, err := w.Write(dt); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"none": dt, "gzip": gz.Bytes(), "zstd": enc.EncodeAll(dt, nil)}
}

func TestAddUnpacksArchives(t *testing.T) {
	archive := tarOf(t, []file{
		{path: "./"},
		{path: "dir/", mode: unix.S_IFDIR | 0o750, uid: 3, gid: 4},
		{path: "dir/file", data: "content", mode: 0o4711, uid: 5, x: map[string]string{"user.k": "v", "trusted.overlay.opaque": "y"}},
		{path: "dir/hard", link: "dir/file"},
		{path: "abs", mode: unix.S_IFLNK | 0o777, data: "/dir"},
		{path: "abs/inside", data: "through the link"},
		{path: "/rooted", data: "r"},
		{path: "no/entry/above", data: "x"},
		{path: "over/", uid: 1},
	})
	for name, dt := range compressions(t, archive) {
		t.Run(name, func(t *testing.T) {
			y := newYard(t, nil)
			y.try(t, fileCase{
				base: []file{{path: "to/"}, {path: "to/over/", uid: 9}, {path: "to/over/kept"}, {path: "to/rooted/"}, {path: "to/rooted/old"}},
				ctx:  []file{{path: "a.tar", data: string(dt)}, {path: "l", mode: unix.S_IFLNK | 0o777, data: "a.tar"}},
				do: func(b, c llb.State) llb.State {
					return b.File(llb.Copy(c, "/l", "/to", &llb.CopyInfo{AttemptUnpack: true, CreateDestPath: true}))
				},
				want: []string{
					"to 040755 0:0 " + dayText,
					"to/abs 120777 0:0 " + dayText + " -> /dir",
					"to/dir 040750 3:4 " + dayText,
					"to/dir/file 104711 5:0 " + dayText + ` user.k="v" "content"`,
					"to/dir/hard 104711 5:0 " + dayText + ` user.k="v" "content" = to/dir/file`,
					"to/dir/inside 100644 0:0 " + dayText + ` "through the link"`,
					"to/no 040755 0:0 now",
					"to/no/entry 040755 0:0 now",
					"to/no/entry/above 100644 0:0 " + dayText + ` "x"`,
					"to/over 040755 1:0 " + dayText,
					"to/over/kept 100644 0:0 " + dayText + ` ""`,
					"to/rooted 100644 0:0 " + dayText + ` "r"`,
				},
			})
		})
	}
}

func TestAddCopiesWhatIsNoArchive(t *testing.T) {
	y := newYard(t, nil)
	y.try(t, fileCase{
		ctx: []file{{path: "f", data: "\x1f\x8b no gzip"}},
		do: func(b, c llb.State) llb.State {
			return b.File(llb.Copy(c, "/f", "/f", &llb.CopyInfo{AttemptUnpack: true}))
		},
		want: []string{"f 100644 0:0 " + dayText + ` "\x1f\x8b no gzip"`},
	})
}

func TestAddRefusesToLeaveTheDestination(t *testing.T) {
	for _, f := range [][]file{
		{{path: "../evil", data: "x"}},
		{{path: "a/../../evil", data: "x"}},
		{{path: "l", link: "../etc/passwd"}},
	} {
		e := newEngine(t)
		e.src.set("base", file{path: "etc/"}, file{path: "etc/passwd", data: "root"}, file{path: "to/"})
		e.src.set("ctx", file{path: "a.tar", data: string(tarOf(t, f))})
		s := mem("base").File(llb.Copy(mem("ctx"), "/a.tar", "/to/", &llb.CopyInfo{AttemptUnpack: true}))
		_, err := e.build(s, LoadOptions{})
		if err == nil || !strings.Contains(err.Error(), "archive entry") {
			t.Errorf("%s: error %v, want a refusal that names the entry", f[0].path, err)
		}
		if strings.Contains(f[0].path, "..") && !errors.Is(err, ErrOutsideArchive) {
			t.Errorf("%s: error %v, want ErrOutsideArchive", f[0].path, err)
		}
	}
}

func TestFileKeysNameWhatCounts(t *testing.T) {
	y := newYard(t, nil)
	key := func(o ...llb.CopyOption) string {
		return fmt.Sprint(keyOf(t, y.load(mem("a").File(llb.Copy(mem("b"), "/x", "/y", o...)))))
	}
	seen := map[string]string{}
	mode := llb.ChmodOpt{ModeStr: "u+x"}
	for name, o := range map[string][]llb.CopyOption{
		"plain":    nil,
		"owner":    {llb.WithUIDGID(1, 2)},
		"user":     {llb.WithUser("u")},
		"follow":   {&llb.CopyInfo{FollowSymlinks: true}},
		"contents": {&llb.CopyInfo{CopyDirContentsOnly: true}},
		"include":  {&llb.CopyInfo{IncludePatterns: []string{"a"}}},
		"exclude":  {&llb.CopyInfo{ExcludePatterns: []string{"a"}}},
		"mode":     {&llb.CopyInfo{Mode: &mode}},
		"unpack":   {&llb.CopyInfo{AttemptUnpack: true}},
		"replace":  {&llb.CopyInfo{AlwaysReplaceExistingDestPaths: true}},
		"time":     {at},
	} {
		k := key(o...)
		if other, ok := seen[k]; ok {
			t.Errorf("%s and %s have one key", name, other)
		}
		seen[k] = name
	}
	moved := fmt.Sprint(keyOf(t, y.load(mem("a").File(llb.Copy(mem("b"), "/elsewhere/x", "/y")))))
	if moved != key() {
		t.Error("where a source with a digested content lay is in the key")
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(tarOf(f, []file{{path: "a/"}, {path: "a/b", data: "x"}, {path: "a/c", link: "a/b"}, {path: "l", mode: unix.S_IFLNK, data: "/"}}))
	f.Add(tarOf(f, []file{{path: "../x"}, {path: "l", mode: unix.S_IFLNK, data: "l"}, {path: "l/x"}}))
	y := newYard(f, nil)
	f.Fuzz(func(t *testing.T, dt []byte) {
		ref, err := y.store.Import(t.Context(), bytes.NewReader(tarOf(t, []file{{path: "a", data: string(dt)}})), layers.ImportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		in := NewResult(ref)
		defer y.release(in)
		op := &pb.FileOp{Actions: []*pb.FileAction{{Input: -1, SecondaryInput: 0, Action: &pb.FileAction_Copy{Copy: &pb.FileActionCopy{
			Src: "/a", Dest: "/to/", Mode: -1, Timestamp: -1, AttemptUnpackDockerCompatibility: true, CreateDestPath: true}}}}}
		work, _, err := y.f.NewLoader(LoadOptions{}).fileOp(op, 1)
		if err != nil {
			t.Fatal(err)
		}
		defer y.closeOp(work)
		out, err := work.Run(t.Context(), &fakeCall{}, []solver.Result{in})
		if err != nil {
			return
		}
		defer y.release(out...)
		tree, err := y.f.tree(t.Context(), RefOf(out[0]))
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range listTree(t, tree, time.Time{}) {
			if !strings.HasPrefix(l, "to ") && !strings.HasPrefix(l, "to/") {
				t.Errorf("unpacked outside of the destination: %s", l)
			}
		}
	})
}

func TestUnpackStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("left")
	cancel(why)
	u := &unpacker{}
	if err := u.run(ctx, bytes.NewReader(tarOf(t, []file{{path: "x"}}))); !errors.Is(err, why) {
		t.Errorf("error %v, want the cause", err)
	}
	var hdr tar.Header
	hdr.Name = strings.Repeat("x/", maxPath)
	if err := u.put(t.Context(), &hdr, nil, nil); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want a refusal of the long path", err)
	}
}
