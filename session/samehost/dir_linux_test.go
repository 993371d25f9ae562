package samehost_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/filesync"
	"github.com/slipwaybuild/slipway/session/samehost"
	"github.com/slipwaybuild/slipway/session/samehost/samehosttest"
	"github.com/slipwaybuild/slipway/session/sessiontest"
	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/testing/protocmp"
)

func serve(t testing.TB) *samehosttest.Daemon {
	return samehosttest.Serve(t, sessiontest.NewManager(t, session.ManagerOptions{}))
}

// open has a client offer a directory and opens it.
func open(t testing.TB, d *samehosttest.Daemon, path string, services ...session.Attachable) *samehost.Dir {
	t.Helper()
	c := d.Client(t, samehost.Offer{Sources: map[string]samehost.Source{"context": {Path: path}}}, services...)
	dir, err := d.Host.OpenDir(t.Context(), c, "context")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dir.Close(); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// odd makes a directory with one of everything.
func odd(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	p := func(name string) string { return filepath.Join(dir, name) }
	for _, d := range []string{"a/b/c", "empty", "node_modules/x", "src", "out.dir/sub", "zz"} {
		must(os.MkdirAll(p(d), 0o755))
	}
	for name, content := range map[string]string{
		"a/b/c/f": "1", "a/x.go": "2", "a/y.txt": "", "node_modules/x/i.js": "3", "node_modules/keep.js": "4",
		"src/main.go": "5", "src/main_test.go": "6", "src/ünïcode": "7", "a-b": "8", "a.b": "9", "out.dir/sub/f": "10", "zz/1": "11",
	} {
		must(os.WriteFile(p(name), []byte(content), 0o644))
	}
	must(os.Link(p("a/x.go"), p("a/again.go")), os.Link(p("a/x.go"), p("zz/link")), os.Link(p("node_modules/keep.js"), p("src/keep.js")))
	must(os.Symlink("../src", p("a/to-src")), os.Symlink("/src/main.go", p("absolute")), os.Symlink("/etc", p("out")),
		os.Symlink("loop", p("loop")), os.Symlink("nowhere", p("dangling")), os.Symlink("a/to-src/main.go", p("chain")))
	must(unix.Mkfifo(p("fifo"), 0o600), os.Chmod(p("src"), 0o2775), os.Chmod(p("src/main.go"), 0o4755), os.Chmod(p("empty"), 0o1777))
	must(unix.Setxattr(p("src/main.go"), "user.test", []byte("value"), 0), unix.Setxattr(p("src"), "user.dir", []byte("v"), 0))
	must(unix.Mknod(p("sock"), unix.S_IFSOCK|0o600, 0))
	if os.Geteuid() == 0 {
		must(unix.Mknod(p("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), os.Chown(p("zz/1"), 12, 34))
	}
	return dir
}

// The daemon sees just what the client would send, whatever is selected.
func TestSelectSeesWhatTheSessionSends(t *testing.T) {
	dir := odd(t)
	d := serve(t)
	for i, s := range []samehost.Selection{
		{},
		{Exclude: []string{"node_modules"}},
		{Exclude: []string{"**/*.go", "!src/main.go", "a"}},
		{Exclude: []string{"*", "!src", "!a/b/**"}},
		{Include: []string{"src", "a/b"}},
		{Include: []string{"**/*.go"}, Exclude: []string{"**/*_test.go"}},
		{Include: []string{"zz/link"}},
		{Include: []string{"a/again.go", "zz"}},
		{Follow: []string{"chain"}},
		{Follow: []string{"a/to-src/main.go", "absolute", "loop", "dangling", "missing"}},
		{Follow: []string{"out/passwd", "out"}},
		{Follow: []string{"a/to-*"}},
		{Follow: []string{"."}},
		{Follow: []string{"a/to-src"}, Exclude: []string{"**/*.txt"}},
		{Include: []string{"nothing"}},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			provider := filesync.NewProvider(map[string]filesync.Dir{"context": {Path: dir}}, filesync.ProviderOptions{})
			c := d.Client(t, samehost.Offer{Sources: map[string]samehost.Source{"context": {Path: dir}}}, provider)
			tr, err := filesync.Sync(t.Context(), c, filesync.Request{Dir: "context", Include: s.Include, Exclude: s.Exclude, Follow: s.Follow})
			if err != nil {
				t.Fatal(err)
			}
			defer tr.Close()
			var want, got []*types.Stat
			for {
				f, err := tr.Next(t.Context())
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, f.Stat)
			}
			here, err := d.Host.OpenDir(t.Context(), c, "context")
			if err != nil {
				t.Fatal(err)
			}
			defer here.Close()
			if err := here.Select(t.Context(), s, func(e samehost.Entry) error { got = append(got, e.Stat); return nil }); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Errorf("the session sends (-), the daemon sees (+):\n%s", diff)
			}
		})
	}
}

func read(t testing.TB, d *samehost.Dir, path string) (string, error) {
	t.Helper()
	var out string
	err := d.Do(t.Context(), func(r samehost.Reader) error {
		fd, _, err := r.Open(path)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), path)
		defer f.Close()
		b, err := io.ReadAll(f)
		out = string(b)
		return err
	})
	return out, err
}

func TestNothingLeadsOutOfTheDirectory(t *testing.T) {
	top := t.TempDir()
	inside := filepath.Join(top, "inside")
	for _, err := range []error{
		os.Mkdir(inside, 0o755), os.WriteFile(filepath.Join(top, "secret"), []byte("s"), 0o600),
		os.WriteFile(filepath.Join(inside, "f"), []byte("ok"), 0o644), os.Symlink("f", filepath.Join(inside, "link")),
		os.Symlink("..", filepath.Join(inside, "up")), os.Symlink("/proc/self/root", filepath.Join(inside, "magic")),
		os.Symlink(filepath.Join(top, "secret"), filepath.Join(inside, "abs")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	d := open(t, serve(t), inside)
	if got, err := read(t, d, "f"); got != "ok" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	for _, p := range []string{"../secret", "up/secret", "abs", "link", "magic/etc/passwd", "/etc/passwd", "../../../../etc/passwd"} {
		if got, err := read(t, d, p); err == nil || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %q, %v", p, got, err)
		}
	}
}

// A directory that was passed stays the one that it was, whatever takes its name.
func TestDirectoryThatIsReplacedStaysTheSame(t *testing.T) {
	top := t.TempDir()
	mine, other := filepath.Join(top, "mine"), filepath.Join(top, "other")
	for dir, content := range map[string]string{mine: "mine", other: "other"} {
		if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "f"), []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	d := open(t, serve(t), mine)
	if err := errors.Join(os.Rename(mine, filepath.Join(top, "was")), os.Symlink(other, mine)); err != nil {
		t.Fatal(err)
	}
	if got, err := read(t, d, "f"); got != "mine" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestWhatIsNotOfferedIsUnavailable(t *testing.T) {
	d := serve(t)
	c := d.Client(t, samehost.Offer{Sources: map[string]samehost.Source{"gone": {Path: filepath.Join(t.TempDir(), "no")}}})
	for _, name := range []string{"other", "gone"} {
		if _, err := d.Host.OpenDir(t.Context(), c, name); !errors.Is(err, samehost.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := session.New(session.Options{})
	plain := sessiontest.Run(t, d.Sessions, d.Dialer(), s)
	if _, err := d.Host.OpenDir(t.Context(), plain, "context"); !errors.Is(err, samehost.ErrUnavailable) {
		t.Error(err)
	}
	if _, err := (*samehost.Host)(nil).OpenDir(context.Background(), c, "context"); !errors.Is(err, samehost.ErrUnavailable) {
		t.Error(err)
	}
}
