package executor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tree makes files in a new directory: "a/" is a directory, "a>b" a symlink, anything else a file that holds its name.
func tree(t *testing.T, names ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, name := range names {
		link, target, isLink := strings.Cut(name, ">")
		p := filepath.Join(root, link)
		err := os.MkdirAll(filepath.Dir(p), 0o755)
		switch {
		case isLink:
			err = errors.Join(err, os.Symlink(target, p))
		case strings.HasSuffix(name, "/"):
			err = errors.Join(err, os.MkdirAll(p, 0o755))
		default:
			err = errors.Join(err, os.WriteFile(p, []byte(name), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestViewWalk(t *testing.T) {
	t.Parallel()
	root := tree(t, "a/b/f", "abs>/a/b", "up>../../../../a", "a/rel>b", "loop>loop", "in>/m/x", "m/hidden", "dangling>/gone/away", "run/")
	other := tree(t, "x/y", "x/out>/a/b/f", "x/back>../../../a")
	v := &view{mounts: []viewMount{
		{dest: "/", host: root},
		{dest: "/m", host: other},
		{dest: "/run"},
	}}
	for _, c := range []struct {
		path, want, rest string
		err              error
	}{
		{"/", "/", "", nil},
		{"", "/", "", nil},
		{"/a/b/f", "/a/b/f", "", nil},
		{"a//./b/../b/f", "/a/b/f", "", nil},
		{"/../../a", "/a", "", nil},
		{"/abs/f", "/a/b/f", "", nil},
		{"/up/b/f", "/a/b/f", "", nil},
		{"/a/rel/f", "/a/b/f", "", nil},
		{"/m/x/y", "/m/x/y", "", nil},
		{"/in/y", "/m/x/y", "", nil},
		{"/m/x/out", "/a/b/f", "", nil},
		{"/m/x/back/b", "/a/b", "", nil},
		{"/m/..", "/", "", nil},
		{"/m/hidden", "/m", "hidden", fs.ErrNotExist},
		{"/a/none/x", "/a", "none/x", fs.ErrNotExist},
		{"/dangling/x", "/", "gone/away/x", fs.ErrNotExist},
		{"/run/lock/x", "/", "run/lock/x", errRuntimeMade},
		{"/loop", "", "", unix.ELOOP},
		{"/a/b/f/x", "", "", unix.ENOTDIR},
	} {
		at, rest, err := v.walk(c.path, notMade)
		if !errors.Is(err, c.err) {
			t.Errorf("%s: error %v, want %v", c.path, err, c.err)
		}
		got := ""
		if at != nil {
			got = at.path
			at.close()
		}
		if got != c.want || strings.Join(rest, "/") != c.rest {
			t.Errorf("%s leads to %q and leaves %q, want %q and %q", c.path, got, rest, c.want, c.rest)
		}
	}
}

func TestReadFileOfView(t *testing.T) {
	t.Parallel()
	root := tree(t, "f", "d/", "l>f")
	if err := unix.Mkfifo(filepath.Join(root, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	v := &view{mounts: []viewMount{{dest: "/", host: root}}}
	if b, err := v.readFile("/l", 10); string(b) != "f" {
		t.Errorf("read %q, %v", b, err)
	}
	for _, bad := range []string{"/d", "/fifo", "/none"} { // a fifo would be waited for
		if b, err := v.readFile(bad, 10); err == nil {
			t.Errorf("%s: read %q", bad, b)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "big"), make([]byte, 11), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := v.readFile("/big", 10); err == nil {
		t.Error("a file above the limit is read")
	}
}

func TestViewLeaksNoDescriptors(t *testing.T) {
	root := tree(t, "a/b/f", "loop>loop", "up>../../a")
	v := &view{mounts: []viewMount{{dest: "/", host: root}}}
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := count()
	for _, p := range []string{"/a/b/f", "/loop", "/up/b/none", "/a/b/f/x", "/a/../../a/b/../.."} {
		if at, _, _ := v.walk(p, notMade); at != nil {
			at.close()
		}
	}
	if after := count(); after != before {
		t.Errorf("%d file descriptors, %d before", after, before)
	}
}

// FuzzWalk: no path and no symlink leads out of the root.
func FuzzWalk(f *testing.F) {
	f.Add("/l/x", "../../..")
	f.Add("a/../../l", "/")
	f.Add("/l/l/l", "l/../l")
	f.Add("//./..", "a//b/")
	f.Fuzz(func(t *testing.T, p, target string) {
		if target == "" || strings.ContainsRune(target, 0) || len(target) > 200 || len(p) > 200 {
			t.Skip("no symlink can have such a target")
		}
		base := t.TempDir()
		root := filepath.Join(base, "root")
		if err := errors.Join(os.MkdirAll(filepath.Join(root, "a/b"), 0o755), os.Symlink(target, filepath.Join(root, "l"))); err != nil {
			t.Fatal(err)
		}
		v := &view{mounts: []viewMount{{dest: "/", host: root, stubs: newStubs()}}}
		at, _, err := v.walk(p, func(at *place, name string, _ bool) error {
			return v.mounts[0].stubs.make(at, name, newFile{mode: unix.S_IFDIR | 0o755, uid: os.Getuid(), gid: os.Getgid()})
		})
		if at == nil {
			return // err says why
		}
		defer at.close()
		got, readErr := os.Readlink("/proc/self/fd/" + itoa(at.fd))
		if readErr != nil {
			t.Fatal(readErr)
		}
		if got != root && !strings.HasPrefix(got, root+"/") {
			t.Errorf("walk %q through a link to %q ended at %s (%v)", p, target, got, err)
		}
		entries, readErr := os.ReadDir(base)
		if readErr != nil || len(entries) != 1 {
			t.Errorf("something was made outside: %v %v", entries, readErr)
		}
	})
}
