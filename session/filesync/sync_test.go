package filesync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	bkfilesync "github.com/moby/buildkit/session/filesync"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// providers are the clients that Sync must understand.
func providers(t testing.TB, dir string) map[string]registrar {
	fs, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]registrar{
		"ours":     NewProvider(map[string]Dir{"context": {Path: dir, Map: ResetOwner}}, ProviderOptions{}),
		"buildkit": bkfilesync.NewFSSyncProvider(bkfilesync.StaticDirSource{"context": fs}),
	}
}

func TestSync(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 300<<10) // 4.8 MiB: larger than any window of one file
	dir := writeTree(t, map[string]string{
		"Dockerfile": "FROM scratch\n", "a/b/c": "c", "a-b": "dash", "a/empty": "", "big": big, "big2": big + "x",
		"link": "-> a/b", "src/ünï": "code", "node_modules/x/y": "no", "emptydir/": "",
	})
	if err := os.Link(filepath.Join(dir, "a/b/c"), filepath.Join(dir, "hard")); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{
		"Dockerfile": "FROM scratch\n", "a": "dir", "a/b": "dir", "a/b/c": "c", "a-b": "dash", "a/empty": "", "big": big, "big2": big + "x",
		"link": "-> a/b", "src": "dir", "src/ünï": "code", "hard": "-> a/b/c", "emptydir": "dir",
	}
	for name, p := range providers(t, dir) {
		t.Run(name, func(t *testing.T) {
			c := connect(t, p)
			for _, hints := range []bool{false, true} {
				got := syncAll(t, c, Request{Dir: "context", Exclude: []string{"node_modules"}, Hints: hints})
				if d := cmp.Diff(all, got); d != "" {
					t.Errorf("hints %v: (-want +got)\n%s", hints, d)
				}
			}
			got := syncAll(t, c, Request{Dir: "context", Follow: []string{"link"}, Include: []string{"src/ünï"}})
			want := map[string]string{"a": "dir", "a/b": "dir", "a/b/c": "c", "link": "-> a/b", "src": "dir", "src/ünï": "code"}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("follow: (-want +got)\n%s", d)
			}
			got = syncAll(t, c, Request{Dir: "context", Want: func(st *types.Stat, _ string) bool { return st.Path == "a-b" }})
			if got["a-b"] != "dash" || got["big"] != "unread" {
				t.Errorf("a-b %q, big %.10q", got["a-b"], got["big"])
			}
		})
	}
}

func TestSyncUnknownDir(t *testing.T) {
	for name, p := range providers(t, t.TempDir()) {
		t.Run(name, func(t *testing.T) {
			tr, err := Sync(t.Context(), connect(t, p), Request{Dir: "nope"})
			if err != nil {
				t.Fatal(err)
			}
			defer tr.Close()
			_, err = tr.Next(t.Context())
			if err == nil || !strings.Contains(err.Error(), `no access allowed to dir "nope"`) {
				t.Errorf("error %v", err)
			}
			if name == "ours" && status.Code(err) != codes.NotFound {
				t.Errorf("code %v", status.Code(err))
			}
		})
	}
}

// A consumer may leave any file unread, and stop at any place.
func TestSyncUnread(t *testing.T) {
	files := map[string]string{}
	for i := range 50 {
		files[fmt.Sprintf("f%02d", i)] = strings.Repeat("x", 100_000*(i%20))
	}
	dir := writeTree(t, files)
	for name, p := range providers(t, dir) {
		t.Run(name, func(t *testing.T) {
			c := connect(t, p)
			tr, err := Sync(t.Context(), c, Request{Dir: "context"})
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for {
				f, err := tr.Next(t.Context())
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if n++; n%3 == 0 {
					if _, err := io.CopyN(io.Discard, f.Content, f.Stat.Size/2); err != nil {
						t.Fatal(err)
					}
				}
			}
			if n != 50 {
				t.Errorf("%d files", n)
			}
			tr.Close()
			tr, err = Sync(t.Context(), c, Request{Dir: "context"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tr.Next(t.Context()); err != nil {
				t.Fatal(err)
			}
			tr.Close() // returns: nothing of it hangs
		})
	}
}

// buildkitd's receiver must be content with our provider.
func TestProviderWithBuildKitReceiver(t *testing.T) {
	dir := writeTree(t, map[string]string{"a/b": "b", "a/c": strings.Repeat("c", 1<<20), "d": "-> a/b"})
	c := connect(t, NewProvider(map[string]Dir{"context": {Path: dir}}, ProviderOptions{}))
	stream, err := bkfilesync.NewFileSyncClient(c.Conn()).DiffCopy(withDir(t.Context(), "context"))
	if err != nil {
		t.Fatal(err)
	}
	dest := t.TempDir()
	if err := fsutil.Receive(stream.Context(), stream, dest, fsutil.ReceiveOpt{}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dest, "d"))
	if err != nil || string(b) != "b" {
		t.Errorf("%q, %v", b, err)
	}
	if fi, err := os.Stat(filepath.Join(dest, "a/c")); err != nil || fi.Size() != 1<<20 {
		t.Errorf("%v, %v", fi, err)
	}
}

func BenchmarkSync20k(b *testing.B) {
	dir := b.TempDir()
	for i := range 20_000 {
		p := filepath.Join(dir, fmt.Sprintf("d%03d", i/100), fmt.Sprintf("f%02d", i%100))
		if i%100 == 0 {
			if err := os.Mkdir(filepath.Dir(p), 0o755); err != nil {
				b.Fatal(err)
			}
		}
		if err := os.WriteFile(p, []byte(strings.Repeat("z", 500+i%1000)), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	for name, p := range providers(b, dir) {
		for _, all := range []bool{true, false} {
			b.Run(fmt.Sprintf("%s/all=%v", name, all), func(b *testing.B) {
				c := connect(b, p)
				req := Request{Dir: "context", Hints: true}
				if !all {
					req.Want = func(*types.Stat, string) bool { return false }
				}
				for b.Loop() {
					tr, err := Sync(b.Context(), c, req)
					if err != nil {
						b.Fatal(err)
					}
					n := 0
					for {
						f, err := tr.Next(context.Background())
						if errors.Is(err, io.EOF) {
							break
						}
						if err != nil {
							b.Fatal(err)
						}
						if n++; f.Content != nil {
							if _, err := io.Copy(io.Discard, f.Content); err != nil {
								b.Fatal(err)
							}
						}
					}
					if n != 20_200 {
						b.Fatal(n)
					}
					tr.Close()
				}
			})
		}
	}
}
