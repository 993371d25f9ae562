package ops

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/continuity/fs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/slipwaybuild/slipway/solver"
	fscopy "github.com/tonistiigi/fsutil/copy"
	"golang.org/x/sys/unix"
)

// reference does a copy action on real directories with the library that BuildKit does it with.
func reference(ctx context.Context, src, dst string, a *pb.FileActionCopy) error {
	clean := func(s string) string {
		p := filepath.Join("/", s)
		switch {
		case strings.HasSuffix(s, "/."):
			return strings.TrimSuffix(p, "/") + "/."
		case strings.HasSuffix(s, "/") && p != "/":
			return p + "/"
		}
		return p
	}
	if !a.CreateDestPath {
		p, err := fs.RootPath(dst, filepath.Join("/", a.Dest))
		if err != nil {
			return err
		}
		if _, err := os.Lstat(filepath.Dir(p)); err != nil {
			return err
		}
	}
	sources := []string{clean(a.Src)}
	if a.AllowWildcard {
		var err error
		if sources, err = fscopy.ResolveWildcards(src, clean(a.Src), a.FollowSymlink); err != nil {
			return err
		}
		if len(sources) == 0 && !a.AllowEmptyWildcard {
			return fmt.Errorf("%s not found", a.Src)
		}
	}
	for _, s := range sources {
		err := fscopy.Copy(ctx, src, s, dst, clean(a.Dest), func(ci *fscopy.CopyInfo) {
			ci.IncludePatterns, ci.ExcludePatterns = a.IncludePatterns, a.ExcludePatterns
			if o := a.Owner; o != nil {
				uid, gid := int(o.User.GetByID()), int(o.Group.GetByID())
				ci.Chown = func(*fscopy.User) (*fscopy.User, error) { return &fscopy.User{UID: uid, GID: gid}, nil }
			}
			if a.Timestamp != -1 {
				t := time.Unix(0, a.Timestamp)
				ci.Utime = &t
			}
			if a.ModeStr != "" {
				ci.ModeStr = a.ModeStr
			} else if m := int(a.Mode); m != -1 {
				ci.Mode = &m
			}
			ci.CopyDirContents, ci.FollowLinks = a.DirCopyContents, a.FollowSymlink
			ci.AlwaysReplaceExistingDestPaths = a.AlwaysReplaceExistingDestPaths
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// compareCopy does one copy both ways, on directories that are filled by fill, and compares what comes out.
func compareCopy(t *testing.T, y *yard, src, dst string, a *pb.FileActionCopy) {
	t.Helper()
	from, to := NewResult(y.importDir(src)), NewResult(y.importDir(dst))
	defer y.release(from, to)
	now := time.Now()
	wantErr := reference(t.Context(), src, dst, a)
	op := &pb.FileOp{Actions: []*pb.FileAction{{Input: 0, SecondaryInput: 1, Action: &pb.FileAction_Copy{Copy: a}}}}
	work, _, err := y.f.NewLoader(LoadOptions{}).fileOp(op, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer y.closeOp(work)
	out, err := work.Run(t.Context(), &fakeCall{}, []solver.Result{to, from})
	defer y.release(out...)
	if err == nil && errors.Is(wantErr, unix.ENOTDIR) {
		// The reference looks below a file even for what it will not copy, or where it was told to replace the file.
		return
	}
	if (err != nil) != (wantErr != nil) {
		t.Fatalf("copy %v\ngot error  %v\nwant error %v", a, err, wantErr)
	}
	if err != nil {
		return
	}
	got, want := y.list(out[0], now), listDir(t, dst, now)
	got, want = blurDirs(got, want)
	if !slices.Equal(got, want) {
		t.Errorf("copy %v\ngot:\n  %s\nwant:\n  %s", a, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// blurDirs takes the times of directories out of both lists where the reference has "now": a directory gets that on a real
// file system whenever something is put into it, and in a layer keeps the time it had.
func blurDirs(got, want []string) ([]string, []string) {
	blur := func(s string) string {
		f := strings.SplitN(s, " ", 5)
		if !strings.HasPrefix(f[1], "04") {
			return s
		}
		f[3] = "-"
		return strings.Join(f, " ")
	}
	for i, w := range want {
		f := strings.SplitN(w, " ", 5)
		if strings.HasPrefix(f[1], "04") && f[3] == "now" {
			want[i] = blur(w)
			for j, g := range got {
				if strings.HasPrefix(g, f[0]+" ") {
					got[j] = blur(g)
				}
			}
		}
	}
	return got, want
}

// grow fills a directory with something of everything, reproducibly. Hard links are only for sources: where a copy replaces the
// first name of one below it, a tree does not show that the others are still one file.
func grow(t testing.TB, dir string, r *rand.Rand, n int, links bool) {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	dirs := []string{"."}
	var files []string
	names := []string{"a", "b", "c", "d.txt", "e.txt", ".hidden"}
	for range n {
		p := filepath.Join(dirs[r.IntN(len(dirs))], names[r.IntN(len(names))])
		full := filepath.Join(dir, p)
		if _, err := os.Lstat(full); err == nil {
			continue
		}
		switch k := r.IntN(10); {
		case k < 3:
			must(os.Mkdir(full, 0o700))
			must(os.Chmod(full, []os.FileMode{0o755, 0o700, 0o777 | os.ModeSticky, 0o2750 | os.ModeSetgid}[r.IntN(4)]))
			dirs = append(dirs, p)
		case k < 7:
			must(os.WriteFile(full, fmt.Appendf(nil, "%s %d", p, r.IntN(3)), 0o600))
			must(os.Chmod(full, []os.FileMode{0o644, 0o600, 0o755, 0o755 | os.ModeSetuid}[r.IntN(4)]))
			files = append(files, p)
			if r.IntN(3) == 0 {
				must(unix.Lsetxattr(full, "user.note", []byte("x"), 0))
			}
		case k < 9:
			targets := []string{"a", "../a", "/a", "/b/c", "/", ".", "nowhere", "..", "/b", "d.txt"}
			must(os.Symlink(targets[r.IntN(len(targets))], full))
		default:
			if links && len(files) > 0 {
				must(os.Link(filepath.Join(dir, files[r.IntN(len(files))]), full))
			}
		}
	}
	// Owners and times last, and deepest first: making something changes the time of what it is in.
	var all []string
	must(filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		all = append(all, p)
		return err
	}))
	for i, p := range slices.Backward(all) {
		if os.Geteuid() == 0 {
			var st unix.Stat_t
			must(unix.Lstat(p, &st))
			must(os.Lchown(p, r.IntN(3), r.IntN(3)))
			if st.Mode&unix.S_IFMT != unix.S_IFLNK {
				must(unix.Chmod(p, st.Mode&0o7777))
			}
		}
		at := unix.NsecToTimespec(day.UnixNano() + int64(i)*1_000_000_007)
		must(unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW))
	}
}

func randomCopy(r *rand.Rand) *pb.FileActionCopy {
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	a := &pb.FileActionCopy{
		Src:            pick("/", ".", "a", "/a/", "b", "/b/c", "a/b", "*", "/*.txt", "?", "a/*", "*/*", "[ab]", "/c", "d.txt", "none", "*none*", ".hidden"),
		Dest:           pick("/", ".", "/a", "/a/", "/b/c/", "new", "/new/", "/new/deep", "b", "/d.txt", "c/.", "/c/x", "../x"),
		Mode:           -1,
		Timestamp:      -1,
		CreateDestPath: r.IntN(4) > 0,
	}
	for _, b := range []*bool{&a.FollowSymlink, &a.DirCopyContents, &a.AllowWildcard, &a.AllowEmptyWildcard, &a.AlwaysReplaceExistingDestPaths} {
		*b = r.IntN(2) == 0
	}
	switch r.IntN(4) {
	case 0:
		a.Mode = []int32{0o644, 0o4755, 0o1777, 0}[r.IntN(4)]
	case 1:
		a.ModeStr = pick("u=rwX,go=rX", "a+x", "go-rwx", "0755", "u+s,g+s", "+t")
	}
	if r.IntN(4) == 0 {
		a.Timestamp = 1_000_000_000_000_000_123
	}
	if r.IntN(4) == 0 {
		a.Owner = &pb.ChownOpt{
			User:  &pb.UserOpt{User: &pb.UserOpt_ByID{ByID: 7}},
			Group: &pb.UserOpt{User: &pb.UserOpt_ByID{ByID: 8}},
		}
	}
	patterns := []string{"*.txt", "a", "a/b", "**/a", "b/**", "!a/b", "*/c", "**/*.txt", "!**/d.txt", ".hidden"}
	if r.IntN(3) == 0 {
		a.IncludePatterns = append(a.IncludePatterns, patterns[r.IntN(len(patterns))], patterns[r.IntN(len(patterns))])
	}
	if r.IntN(3) == 0 {
		a.ExcludePatterns = append(a.ExcludePatterns, patterns[r.IntN(len(patterns))], patterns[r.IntN(len(patterns))])
	}
	return a
}

// Copies of random trees come out as with the library that clients know them from.
func TestCopyIsTheReferences(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give files to others")
	}
	y := newYard(t, nil)
	n := 400
	if testing.Short() {
		n = 60
	}
	for seed := range uint64(n) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			src, dst := t.TempDir(), t.TempDir()
			grow(t, src, r, 4+r.IntN(30), true)
			grow(t, dst, r, r.IntN(20), false)
			compareCopy(t, y, src, dst, randomCopy(r))
		})
	}
}
