package filesync

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A file that is changed while it is read does not end as if it were whole, also if its size and modification time stay.
func TestReadingNoticesChanges(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(path string) error{
		"same size and time": func(path string) error {
			fi, err := os.Stat(path)
			if err != nil {
				return err
			}
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("B"), 50)
			return errors.Join(err, f.Close(), os.Chtimes(path, fi.ModTime(), fi.ModTime()))
		},
		"longer":  func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("b", 200)), 0o600) },
		"shorter": func(path string) error { return os.Truncate(path, 20) },
		"":        func(string) error { return nil },
	} {
		dir := writeTree(t, map[string]string{"f": strings.Repeat("a", 100)})
		h, err := newHostFS(dir)
		if err != nil {
			t.Fatal(err)
		}
		f, err := h.Open("f")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(f, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		if err := change(filepath.Join(dir, "f")); err != nil {
			t.Fatal(err)
		}
		if _, err = io.ReadAll(f); errors.Is(err, errChanging) != (name != "") || name == "" && err != nil {
			t.Errorf("%q: %v", name, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

// What arrives of files that are overwritten in place all the time is of one state, or the transfer fails and names the file.
func TestNeverMixedContent(t *testing.T) {
	t.Parallel()
	const small, large = 100 << 10, 3 << 20
	dir := writeTree(t, map[string]string{"small": strings.Repeat("a", small), "large": strings.Repeat("a", large)})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for name, size := range map[string]int{"small": small, "large": large} {
		wg.Go(func() {
			for i := 0; ; i++ {
				f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
				if err != nil {
					t.Error(err)
					return
				}
				// At once, as between two writes a mixture would be what the file is.
				if _, err := f.WriteAt(bytes.Repeat([]byte{"ab"[i%2]}, size), 0); err != nil {
					t.Error(err)
				}
				if err := f.Close(); err != nil {
					t.Error(err)
				}
				select {
				case <-stop:
					return
				case <-time.After(30 * time.Millisecond):
				}
			}
		})
	}
	c := connect(t, NewProvider(map[string]Dir{"d": {Path: dir}}, ProviderOptions{}))
	whole, failed := 0, 0
	for range 40 {
		tr, err := Sync(t.Context(), c, Request{Dir: "d"})
		if err != nil {
			t.Fatal(err)
		}
		got, err := collect(t.Context(), tr)
		switch {
		case err == nil:
			whole++
			for name, content := range got {
				if n := strings.Count(content, content[:1]); n != len(content) {
					t.Errorf("%s has %d bytes of one state and %d of another", name, n, len(content)-n)
				}
			}
		case strings.Contains(err.Error(), "large: the file was changed while it was read") || strings.Contains(err.Error(), "small: the file was changed while it was read"):
			failed++
		default:
			t.Error(err)
		}
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	t.Logf("%d whole, %d failed", whole, failed)
	if got := syncAll(t, c, Request{Dir: "d"}); len(got["large"]) != large || len(got["small"]) != small {
		t.Error("files that came to rest did not arrive")
	}
}

// A large file that was replaced by a longer one after it was listed is not cut off to its old length.
func TestReplacedByLonger(t *testing.T) {
	t.Parallel()
	dir := writeTree(t, map[string]string{"f": strings.Repeat("a", wholeSize+10), "link": "-> f"})
	base, err := newHostFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := connect(t, NewProvider(map[string]Dir{"d": {FS: &replacing{hostFS: base, with: strings.Repeat("b", 2*wholeSize)}}}, ProviderOptions{}))
	tr, err := Sync(t.Context(), c, Request{Dir: "d"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := collect(t.Context(), tr)
	if err == nil || !strings.Contains(err.Error(), "f: the file was changed") {
		t.Errorf("%d bytes, %v", len(got["f"]), err)
	}
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
}

// replacing writes a file anew before it is opened.
type replacing struct {
	*hostFS
	with string
}

func (r *replacing) Open(p string) (io.ReadCloser, error) {
	if err := os.WriteFile(filepath.Join(r.root, p), []byte(r.with), 0o600); err != nil {
		return nil, err
	}
	return r.hostFS.Open(p)
}
