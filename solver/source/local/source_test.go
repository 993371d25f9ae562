package local

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/source"
)

func TestPin(t *testing.T) {
	t.Parallel()
	files := map[string]string{"Dockerfile": "FROM x\n", "src/a.go": "package a", "src/b": strings.Repeat("b", 3<<20), "l": "-> src/b", "skip/x": "x"}
	want := map[string]string{"src": "dir"}
	maps.Copy(want, files)
	delete(want, "skip/x")
	for _, kind := range []string{"ours", "buildkit"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, nil)
			dir := t.TempDir()
			write(t, dir, files)
			attach := ours(dir)
			if kind == "buildkit" {
				attach = buildkits(t, dir)
			}
			id := f.client("key", attach)
			attrs := map[string]string{"local.session": id, "local.excludepatterns": `["skip"]`}
			before, got, layer := f.pin(f.env(id), attrs)
			if d := cmp.Diff(want, got); d != "" {
				t.Fatalf("(-want +got)\n%s", d)
			}
			past := time.Now().Add(-time.Hour)
			if err := os.Chtimes(filepath.Join(dir, "Dockerfile"), past, past); err != nil {
				t.Fatal(err)
			}
			touched, _, touchedLayer := f.pin(f.env(id), attrs)
			if touched != before {
				t.Error("the key changed with a time")
			}
			if touchedLayer == layer {
				t.Error("the layer lost the new time")
			}
			write(t, dir, map[string]string{"src/a.go": "package z"})
			if changed, got, _ := f.pin(f.env(id), attrs); changed == before || got["src/a.go"] != "package z" {
				t.Errorf("key %s, a.go %q", changed, got["src/a.go"])
			}
		})
	}
}

// What did not change is neither read nor sent, and what did is.
func TestIncremental(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	dir := t.TempDir()
	files := map[string]string{}
	for i := range 300 {
		files[fmt.Sprintf("d%d/f%03d", i%7, i)] = fmt.Sprint("content ", i)
	}
	write(t, dir, files)
	settled(t, dir)
	attach := ours(dir)
	pin := func(sharedKey string) (string, map[string]string, layers.ID, int64) {
		id := f.client(sharedKey, attach)
		var sink statuses
		env := f.env(id)
		env.Progress = &sink
		content, got, layer := f.pin(env, nil)
		return content, got, layer, sink.transferred(t)
	}
	first, _, layer, n := pin("me")
	if n == 0 {
		t.Fatal("nothing transferred at first")
	}
	again, _, sameLayer, n := pin("me")
	if again != first || sameLayer != layer || n != 0 {
		t.Errorf("unchanged: content %v, layer %v, %d bytes", again == first, sameLayer == layer, n)
	}
	for _, other := range []string{"you", ""} {
		if got, _, _, n := pin(other); got != first || n == 0 {
			t.Errorf("shared key %q: same content %v, %d bytes", other, got == first, n)
		}
	}
	write(t, dir, map[string]string{"d3/f010": "contenT 10", "new": "n"})
	if err := os.Remove(filepath.Join(dir, "d1/f008")); err != nil {
		t.Fatal(err)
	}
	files["d3/f010"], files["new"] = "contenT 10", "n"
	delete(files, "d1/f008")
	changed, got, _, n := pin("me")
	if changed == first || n != int64(len("contenT 10n")) {
		t.Errorf("changed: same content %v, %d bytes", changed == first, n)
	}
	for i := range 7 {
		delete(got, fmt.Sprintf("d%d", i))
	}
	if d := cmp.Diff(files, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	// The same from nothing gives the same.
	if fresh, _, _, _ := pin("you, afresh"); fresh != changed {
		t.Error("incremental and full sync disagree")
	}
}

func TestSharedSync(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": strings.Repeat("a", 1<<20)})
	id := f.client("k", ours(dir))
	var wg sync.WaitGroup
	contents := make([]string, 8)
	for i := range contents {
		wg.Go(func() { contents[i], _, _ = f.pin(f.env(id), map[string]string{"local.session": id}) })
	}
	wg.Wait()
	for _, c := range contents {
		if c != contents[0] || c == "" {
			t.Errorf("contents %v", contents)
		}
	}
}

func TestMetadataOnly(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	dir := t.TempDir()
	write(t, dir, map[string]string{"a/b/c": "c", "a/d": "d", "z": "z", "+": "plus"})
	id := f.client("k", ours(dir))
	_, got, _ := f.pin(f.env(id), map[string]string{"local.metadatatransfer": "true", "local.metadatatransferexclude": `["a/b", "+"]`})
	if len(got[metadataName]) == 0 {
		t.Error("no list")
	}
	delete(got, metadataName)
	if d := cmp.Diff(map[string]string{"a": "dir", "a/b": "dir", "a/b/c": "c", "+": "plus"}, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(o *Options) { o.Limits.Entries = 3 })
	dir := t.TempDir()
	write(t, dir, map[string]string{"1": "", "2": "", "3": "", "4": ""})
	id := f.client("k", ours(dir))
	for name, c := range map[string]struct {
		identifier string
		attrs      map[string]string
		env        source.Env
		want       string
	}{
		"no session":  {"local://context", nil, f.env(), session.ErrNoSession.Error()},
		"no dir":      {"local://other", nil, f.env(id), `no access allowed to dir "other"`},
		"bad pattern": {"local://context", map[string]string{"local.includepattern": "{"}, f.env(id), "local.includepattern"},
		"too many":    {"local://context", nil, f.env(id), "more than 3 entries"},
	} {
		_, err := f.source.Pin(t.Context(), c.env, source.Request{Identifier: c.identifier, Attrs: c.attrs})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkPin20k(b *testing.B) {
	f := newFixture(b, nil)
	dir := b.TempDir()
	files := map[string]string{}
	for i := range 20_000 {
		files[fmt.Sprintf("d%03d/f%02d", i/100, i%100)] = strings.Repeat("z", 500+i%1000)
	}
	write(b, dir, files)
	settled(b, dir)
	for _, kind := range []string{"first", "unchanged", "one"} {
		b.Run(kind, func(b *testing.B) {
			i := 0
			id := f.client(kind, ours(dir))
			pin := func() {
				p, err := f.source.Pin(b.Context(), f.env(id), source.Request{Identifier: "local://context"})
				if err != nil {
					b.Fatal(err)
				}
				if err := p.Close(); err != nil {
					b.Fatal(err)
				}
			}
			if kind != "first" {
				pin()
			}
			for b.Loop() {
				switch kind {
				case "first":
					id = f.client(fmt.Sprint(kind, i), ours(dir))
				case "one":
					write(b, dir, map[string]string{"d050/f50": fmt.Sprint("changed ", i)})
				}
				i++
				pin()
			}
		})
	}
}
