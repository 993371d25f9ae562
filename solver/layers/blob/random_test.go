package blob

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// randomTrees is how many trees are tried; SLIPWAY_RANDOM_TREES asks for more.
const randomTrees = 60

// TestRandomTrees makes what a step may leave behind, packs it, reads the tar again and unpacks it: it is the same tree each time, and the
// same layer.
func TestRandomTrees(t *testing.T) {
	t.Parallel()
	needRoot(t)
	n := randomTrees
	if v := os.Getenv("SLIPWAY_RANDOM_TREES"); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	for seed := range uint64(n) {
		// Directories are removed one by one: thousands of them at a time are many files.
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		made, back := filepath.Join(dir, "made"), filepath.Join(dir, "back")
		for _, d := range []string{made, back} {
			if err := os.Mkdir(d, 0o750); err != nil {
				t.Fatal(err)
			}
		}
		randomTree(t, rand.New(rand.NewPCG(seed, 1)), made)
		want := describe(t, DirTree(made))
		first := repack(t, DirTree(made))
		same(t, fmt.Sprintf("seed %d, packed", seed), describe(t, first.Tree()), want)
		if err := Unpack(t.Context(), first.Tree(), back, UnpackOptions{}); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		same(t, fmt.Sprintf("seed %d, unpacked", seed), describe(t, DirTree(back)), want)
		if got := repack(t, DirTree(back)).Summary().DiffID; got != first.Summary().DiffID {
			t.Errorf("seed %d: packed %s, and again %s", seed, first.Summary().DiffID, got)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			return
		}
	}
}

// randomTree fills a directory with all that a layer may hold.
func randomTree(t *testing.T, r *rand.Rand, root string) {
	t.Helper()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dirs, files, all := []string{root}, []string{}, []string{}
	long := "long-" + fmt.Sprintf("%0180d", r.Uint64())
	for i := range 1 + r.IntN(25) {
		name := fmt.Sprintf("n%d ü", i)
		if r.IntN(8) == 0 {
			name = fmt.Sprintf("%d%s", i, long)
		}
		p := filepath.Join(dirs[r.IntN(len(dirs))], name)
		switch k := r.IntN(9); {
		case k < 2 && len(p) < 2000:
			ok(os.Mkdir(p, 0o700))
			dirs = append(dirs, p)
			if r.IntN(4) == 0 {
				ok(unix.Lsetxattr(p, "trusted.overlay.opaque", []byte("y"), 0))
			}
		case k == 2 && len(files) > 0:
			ok(os.Link(files[r.IntN(len(files))], p))
			continue
		case k == 3:
			ok(os.Symlink(filepath.Join("../..", long[:r.IntN(len(long)-1)+1]), p))
		case k == 4:
			ok(unix.Mknod(p, unix.S_IFIFO|0o600, 0))
		case k == 5:
			ok(unix.Mknod(p, unix.S_IFCHR|0o600, int(unix.Mkdev(uint32(r.IntN(4000)+1), uint32(r.IntN(1<<16))))))
		case k == 6:
			ok(unix.Mknod(p, unix.S_IFCHR, 0)) // a whiteout
			continue
		default:
			f, err := os.Create(p)
			ok(err)
			_, err = f.Write(make([]byte, r.IntN(9000)))
			ok(err)
			if r.IntN(3) == 0 { // sparse
				_, err = f.WriteAt([]byte("end"), int64(r.IntN(1<<22)))
				ok(err)
			}
			ok(f.Close())
			files = append(files, p)
		}
		all = append(all, p)
	}
	for _, p := range all {
		var st unix.Stat_t
		ok(unix.Lstat(p, &st))
		ok(os.Lchown(p, r.IntN(1<<22), r.IntN(100)))
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			ok(unix.Chmod(p, uint32(r.IntN(0o10000))))
		}
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			if r.IntN(3) == 0 {
				ok(unix.Setxattr(p, "user.x", []byte{0, 1, '=', '\n', byte(r.IntN(256))}, 0))
			}
			if r.IntN(4) == 0 {
				ok(unix.Setxattr(p, "security.capability", []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0))
			}
		}
	}
	for i := range all { // the innermost first: what is made in a directory changes its time
		p := all[len(all)-1-i]
		at := unix.NsecToTimespec(time.Unix(r.Int64N(6e9)-1e9, r.Int64N(1e9)).UnixNano())
		ok(unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW))
	}
}
