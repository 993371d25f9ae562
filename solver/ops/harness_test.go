package ops

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/executor"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"github.com/slipwaybuild/slipway/solver/progress"
	"github.com/slipwaybuild/slipway/solver/source"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// yard is a layer store and a factory over it.
type yard struct {
	t     testing.TB
	store *layers.Store
	f     *Factory
	src   *memSource
}

func newYard(t testing.TB, exec func(*layers.Store) executor.Executor) *yard {
	t.Helper()
	store, err := layers.Open(t.Context(), layers.Options{Root: t.TempDir(), Realisation: "unpacked"})
	if err != nil {
		t.Fatalf("open layer store: %v", err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Errorf("close layer store: %v", err)
		}
	})
	y := &yard{t: t, store: store, src: &memSource{trees: map[string][]file{}, pins: map[string]int{}}}
	y.src.y = y
	o := Options{
		Store: store, Sources: []source.Source{y.src}, TempDir: t.TempDir(),
		DefaultPlatform: ocispecs.Platform{OS: "linux", Architecture: "amd64"},
	}
	if exec != nil {
		o.Executor = exec(store)
	}
	if y.f, err = New(o); err != nil {
		t.Fatal(err)
	}
	return y
}

// closeOp is what a build does with its ops in the end.
func (y *yard) closeOp(op solver.Op) {
	if c, ok := op.(interface{ Close() error }); ok {
		if err := c.Close(); err != nil {
			y.t.Error(err)
		}
	}
}

// file is an entry of a layer in a test.
type file struct {
	path string
	mode uint32 // with type; 0 is a regular file 0644, a trailing slash in path a directory 0755
	uid  int
	gid  int
	data string // of a regular file; a symlink's target
	link string // first name of a hard link
	time time.Time
	x    map[string]string
}

var day = time.Date(2020, 1, 2, 3, 4, 5, 678, time.UTC)

// layer imports files as one layer.
func (y *yard) layer(files ...file) *layers.Ref {
	y.t.Helper()
	ref, err := y.store.Import(context.Background(), bytes.NewReader(tarOf(y.t, files)), layers.ImportOptions{})
	if err != nil {
		y.t.Fatalf("import layer: %v", err)
	}
	return ref
}

func (y *yard) result(files ...file) solver.Result {
	r := NewResult(y.layer(files...))
	y.t.Cleanup(func() { y.release(r) })
	return r
}

func (y *yard) release(rs ...solver.Result) {
	for _, r := range rs {
		if r == nil {
			continue
		}
		if err := r.Release(); err != nil {
			y.t.Errorf("release: %v", err)
		}
	}
}

func tarOf(t testing.TB, files []file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		hdr := &tar.Header{
			Name: f.path, Mode: int64(f.mode & 0o7777), Uid: f.uid, Gid: f.gid, ModTime: f.time, Format: tar.FormatPAX,
			Typeflag: tar.TypeReg, PAXRecords: map[string]string{},
		}
		if f.time.IsZero() {
			hdr.ModTime = day
		}
		for k, v := range f.x {
			hdr.PAXRecords["SCHILY.xattr."+k] = v
		}
		data := ""
		switch {
		case f.link != "":
			hdr.Typeflag, hdr.Linkname = tar.TypeLink, f.link
		case strings.HasSuffix(f.path, "/") || f.mode&unix.S_IFMT == unix.S_IFDIR:
			hdr.Typeflag = tar.TypeDir
			if f.mode == 0 {
				hdr.Mode = 0o755
			}
		case f.mode&unix.S_IFMT == unix.S_IFLNK:
			hdr.Typeflag, hdr.Linkname = tar.TypeSymlink, f.data
		case f.mode&unix.S_IFMT == unix.S_IFIFO:
			hdr.Typeflag = tar.TypeFifo
		default:
			data = f.data
			hdr.Size = int64(len(data))
			if f.mode == 0 {
				hdr.Mode = 0o644
			}
		}
		if err := w.WriteHeader(hdr); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// importDir imports a real directory as one layer, its own attributes included.
func (y *yard) importDir(dir string) *layers.Ref {
	y.t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	first := map[uint64]string{}
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		link := ""
		if info.Mode()&os.ModeSymlink != 0 {
			if link, err = os.Readlink(p); err != nil {
				return err
			}
		}
		hdr, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		hdr.Name, hdr.Format = rel, tar.FormatPAX
		hdr.AccessTime, hdr.ChangeTime = time.Time{}, time.Time{}
		st := info.Sys().(*syscall.Stat_t)
		if !info.IsDir() && st.Nlink > 1 {
			if name, ok := first[st.Ino]; ok {
				hdr.Typeflag, hdr.Linkname, hdr.Size = tar.TypeLink, name, 0
			} else {
				first[st.Ino] = rel
			}
		}
		hdr.PAXRecords = map[string]string{}
		for k, v := range xattrsOf(y.t, p) {
			hdr.PAXRecords["SCHILY.xattr."+k] = v
		}
		if err := w.WriteHeader(hdr); err != nil {
			return err
		}
		if hdr.Typeflag != tar.TypeReg {
			return nil
		}
		dt, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		_, err = w.Write(dt)
		return err
	})
	if err != nil {
		y.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		y.t.Fatal(err)
	}
	ref, err := y.store.Import(context.Background(), &b, layers.ImportOptions{})
	if err != nil {
		y.t.Fatalf("import %s: %v", dir, err)
	}
	return ref
}

func xattrsOf(t testing.TB, p string) map[string]string {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(p, buf)
	if err != nil || n == 0 {
		return nil
	}
	out := map[string]string{}
	for _, k := range strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		v := make([]byte, 4096)
		m, err := unix.Lgetxattr(p, k, v)
		if err != nil {
			t.Fatal(err)
		}
		out[k] = string(v[:m])
	}
	return out
}

// list describes a tree, one line an entry, for comparison and for people. Times are left out where they are of now.
func (y *yard) list(r solver.Result, now time.Time) []string {
	y.t.Helper()
	tree, err := y.f.tree(y.t.Context(), RefOf(r))
	if err != nil {
		y.t.Fatal(err)
	}
	return listTree(y.t, tree, now)
}

func listTree(t testing.TB, tree fstree.Tree, now time.Time) []string {
	t.Helper()
	var out []string
	names := map[string]string{} // of hard links: a stable name for the group
	err := fstree.Walk(t.Context(), tree, "", func(e fstree.Entry) error {
		if e.Path == "" {
			return nil
		}
		what := ""
		switch e.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			dt, err := fstree.ReadFile(t.Context(), tree, e.Path, 1<<20)
			if err != nil {
				return err
			}
			first := e.Path
			if e.Hardlink != "" {
				first = e.Hardlink
			}
			if names[first] == "" {
				names[first] = e.Path
			}
			what = fmt.Sprintf(" %q", dt)
			if names[first] != e.Path {
				what += " = " + names[first]
			}
		case unix.S_IFLNK:
			what = " -> " + e.Linkname
		case unix.S_IFCHR, unix.S_IFBLK:
			what = fmt.Sprintf(" %d:%d", e.Major, e.Minor)
		}
		out = append(out, line(e.Path, e.Mode, e.UID, e.GID, e.ModTime, now, e.Xattrs)+what)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func line(p string, mode, uid, gid uint32, mtime, now time.Time, x map[string]string) string {
	at := mtime.UTC().Format("2006-01-02T15:04:05.000000000")
	if !now.IsZero() && mtime.After(now.Add(-time.Second)) {
		at = "now"
	}
	s := fmt.Sprintf("%s %06o %d:%d %s", p, mode, uid, gid, at)
	for _, k := range slices.Sorted(maps.Keys(x)) {
		s += fmt.Sprintf(" %s=%q", k, x[k])
	}
	return s
}

// listDir is listTree for a real directory.
func listDir(t testing.TB, dir string, now time.Time) []string {
	t.Helper()
	var out []string
	first := map[uint64]string{}
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		what := ""
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			dt, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			what = fmt.Sprintf(" %q", dt)
			if name, ok := first[st.Ino]; ok {
				what += " = " + name
			}
			if first[st.Ino] == "" {
				first[st.Ino] = rel
			}
		case unix.S_IFLNK:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			what = " -> " + target
		case unix.S_IFCHR, unix.S_IFBLK:
			what = fmt.Sprintf(" %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		out = append(out, line(rel, st.Mode, st.Uid, st.Gid, time.Unix(st.Mtim.Sec, st.Mtim.Nsec), now, xattrsOf(t, p))+what)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(out, func(a, b string) int {
		return fstree.Compare(a[:strings.Index(a, " ")], b[:strings.Index(b, " ")])
	})
	return out
}

// fakeCall is what ops see of a solver.
type fakeCall struct {
	mu  sync.Mutex
	log []byte
}

var _ solver.Call = (*fakeCall)(nil)

func (c *fakeCall) Progress() progress.Writer { return c }
func (c *fakeCall) Lenders() []any            { return nil }
func (c *fakeCall) Status(progress.Status)    {}
func (c *fakeCall) Warn(progress.Warning)     {}
func (c *fakeCall) Log(_ int, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = append(c.log, data...)
}

// memSource serves "mem://name" from lists of files. The name is its key, unless pinned to a version.
type memSource struct {
	y     *yard
	mu    sync.Mutex
	trees map[string][]file
	pins  map[string]int
}

func (s *memSource) set(name string, files ...file) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trees[name] = files
}

func (s *memSource) Schemes() []string { return []string{"mem"} }

func (s *memSource) Pin(_ context.Context, _ source.Env, r source.Request) (source.Pinned, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := strings.TrimPrefix(r.Identifier, "mem://")
	files, ok := s.trees[name]
	if !ok {
		return nil, fmt.Errorf("no such source: %s", name)
	}
	s.pins[name]++
	return &memPinned{s: s, name: name, files: files}, nil
}

type memPinned struct {
	s     *memSource
	name  string
	files []file
}

func (p *memPinned) Key() solver.Parts {
	return solver.Parts{{Name: "mem", Value: p.name}, {Name: "files", Value: fmt.Sprint(p.files)}}
}

func (p *memPinned) Fetch(context.Context, source.Env) (*layers.Ref, error) {
	return p.s.y.layer(p.files...), nil
}

func (p *memPinned) Close() error { return nil }

// mem is the LLB of a memSource.
func mem(name string) llb.State {
	return llb.NewState(llb.NewSource("mem://"+name, nil, llb.Constraints{}).Output())
}

// define marshals a state.
func define(t testing.TB, s llb.State, opts ...llb.ConstraintsOpt) *pb.Definition {
	t.Helper()
	def, err := s.Marshal(context.Background(), append([]llb.ConstraintsOpt{llb.LinuxAmd64}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return def.ToPB()
}

// load loads a state with a loader of its own.
func (y *yard) load(s llb.State) *solver.Vertex {
	y.t.Helper()
	g, err := y.f.NewLoader(LoadOptions{}).Load(y.t.Context(), define(y.t, s))
	if err != nil {
		y.t.Fatalf("load: %v", err)
	}
	return g.Edge().Vertex
}
