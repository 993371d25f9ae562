package git

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/slipwaybuild/slipway/session/secrets"
)

func TestRefs(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	dir := t.TempDir()
	r := newRepo(t, filepath.Join(dir, "r"))
	one := r.commit(map[string]string{"f": "1", "bin/run*": "#!/bin/sh\n", "l": "-> f", "sub/dir/g": "g"})
	r.git("tag", "light")
	r.git("tag", "-a", "heavy", "-m", "tag")
	heavy := r.git("rev-parse", "heavy")
	r.git("branch", "other")
	two := r.commit(map[string]string{"f": "2"})
	r.git("branch", "feature/x")
	r.git("tag", "other") // a branch and a tag: the branch counts
	s := serve(t, dir, "")
	first := map[string]string{"f": "1", "bin/run*": "#!/bin/sh\n", "l": "-> f", "sub/dir/g": "g"}
	second := map[string]string{"f": "2", "bin/run*": "#!/bin/sh\n", "l": "-> f", "sub/dir/g": "g"}
	for _, c := range []struct {
		ref, commit string
		want        map[string]string
		attrs       map[string]string
	}{
		{"", two, second, nil},
		{"#main", two, second, nil},
		{"#refs/heads/main", two, second, nil},
		{"#feature/x", two, second, nil},
		{"#other", one, first, nil},
		{"#light", one, first, nil},
		{"#heavy", one, first, nil},
		{"#refs/tags/heavy", one, first, map[string]string{"git.checksum": heavy}},
		{"#heavy", one, first, map[string]string{"git.checksum": one[:10]}},
		{"#" + one, one, first, nil},
		{"#main", two, second, map[string]string{"git.checksum": two, "git.fetchbycommit": "true"}},
		{"#main:sub/dir", two, map[string]string{"g": "g"}, nil},
		{"#:sub", two, map[string]string{"dir/g": "g"}, nil},
	} {
		files, key, err := f.get(f.nobody(), s.URL+"/r/.git"+c.ref, c.attrs)
		if err != nil {
			t.Errorf("%s: %v", c.ref, err)
			continue
		}
		if d := cmp.Diff(c.want, files); d != "" {
			t.Errorf("%s: (-want +got)\n%s", c.ref, d)
		}
		if key[1].Value != c.commit {
			t.Errorf("%s: commit %s, want %s", c.ref, key[1].Value, c.commit)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	dir := t.TempDir()
	r := newRepo(t, filepath.Join(dir, "r"))
	commit := r.commit(map[string]string{"f": "1", "l": "-> f", "dir/f": ""})
	s := serve(t, dir, "")
	base := s.URL + "/r/.git"
	for _, c := range []struct {
		url   string
		attrs map[string]string
		want  string
	}{
		{base + "#nope", nil, "repository does not contain ref nope"},
		{base + "#--upload-pack=x", nil, "invalid git ref"},
		{base + "#a..b", nil, "invalid git ref"},
		{base + "#main", map[string]string{"git.checksum": strings.Repeat("ab", 20)}, "expected checksum to match abab"},
		{base + "#main", map[string]string{"git.checksum": "xyz"}, "expected hex commit hash"},
		{base + "#" + commit, map[string]string{"git.checksum": "0123"}, "expected checksum to match"},
		{base + "#" + strings.Repeat("0", 39) + "1", nil, "fetch"},
		{base + "#main:nodir", nil, "not a directory of the repository"},
		{base + "#main:l", nil, "not a directory of the repository"},
		{base + "#main:../..", nil, ""},
		{base, map[string]string{"git.bundle": "x"}, "not supported"},
		{base, map[string]string{"git.fullurl": "http://elsewhere/r"}, "does not match"},
		{base, map[string]string{"git.fullurl": "file:///etc"}, "does not match"},
		{base, map[string]string{"git.mtime": "never"}, "unknown value"},
		{base, map[string]string{"git.sig.pubkey": "x"}, "verify signature"},
		{s.URL + "/missing", nil, "resolve ref"},
	} {
		_, _, err := f.get(f.nobody(), c.url, c.attrs)
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", c.url, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %v: %v", c.url, c.attrs, err)
		}
	}
}

func TestMovingRef(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	dir := t.TempDir()
	r := newRepo(t, filepath.Join(dir, "r"))
	one := r.commit(map[string]string{"f": "1"})
	s := serve(t, dir, "")
	url := s.URL + "/r/.git#main"
	p, err := f.source.Pin(t.Context(), f.nobody(), request(url, nil))
	if err != nil {
		t.Fatal(err)
	}
	r.git("commit", "--amend", "--quiet", "-m", "other")
	two := r.commit(map[string]string{"f": "2"})
	// What was pinned is what is fetched, though no ref leads there any more.
	ref, err := p.Fetch(t.Context(), f.nobody())
	if err != nil {
		t.Fatal(err)
	}
	if err := ref.Release(); err != nil {
		t.Error(err)
	}
	files, key, err := f.get(f.nobody(), url, nil)
	if err != nil || files["f"] != "2" || key[1].Value != two || one == two {
		t.Errorf("%v %v %v", files, key, err)
	}
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := newRepo(t, filepath.Join(dir, "r"))
	r.commit(map[string]string{"f": "1"})
	s := serve(t, dir, "x-access-token:hush")
	host := strings.TrimPrefix(s.URL, "http://")
	attrs := map[string]string{"git.authtokensecret": "GIT_AUTH_TOKEN", "git.authheadersecret": "GIT_AUTH_HEADER"}
	for name, store := range map[string]secrets.Map{
		"token":       {"GIT_AUTH_TOKEN": []byte("hush")},
		"host token":  {"GIT_AUTH_TOKEN": []byte("no"), "GIT_AUTH_TOKEN." + host: []byte("hush")},
		"header":      {"GIT_AUTH_HEADER": []byte(basic("x-access-token:hush"))},
		"wrong token": {"GIT_AUTH_TOKEN": []byte("wr0ng")},
		"none":        {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			files, _, err := f.get(f.client(secrets.FromStore(store)), s.URL+"/r/.git", attrs)
			if bad := name == "wrong token" || name == "none"; bad == (err == nil) {
				t.Fatalf("%v, %v", files, err)
			}
			if err != nil && (strings.Contains(err.Error(), "wr0ng") || strings.Contains(err.Error(), basic("x-access-token:wr0ng"))) {
				t.Errorf("secret in error: %v", err)
			}
		})
	}
	t.Run("in the URL", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t)
		with := func(credentials string) string {
			return strings.Replace(s.URL, "://", "://"+credentials+"@", 1) + "/r/.git"
		}
		if files, _, err := f.get(f.nobody(), with("x-access-token:hush"), nil); err != nil || files["f"] != "1" {
			t.Errorf("%v, %v", files, err)
		}
		if _, _, err := f.get(f.nobody(), with("me:wr0ng"), nil); err == nil || strings.Contains(err.Error(), "wr0ng") {
			t.Errorf("error %v", err)
		}
	})
}

func TestSubmodules(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	dir := t.TempDir()
	s := serve(t, dir, "")
	inner := newRepo(t, filepath.Join(dir, "inner"))
	inner.commit(map[string]string{"deep": "d"})
	sub := newRepo(t, filepath.Join(dir, "sub"))
	sub.commit(map[string]string{"s": "sub"})
	sub.git("submodule", "add", "--quiet", s.URL+"/inner/.git", "inner")
	sub.commit(nil)
	r := newRepo(t, filepath.Join(dir, "r"))
	r.commit(map[string]string{"f": "1"})
	r.git("remote", "add", "origin", s.URL+"/r/.git")
	r.git("submodule", "add", "--quiet", "../../sub/.git", "mod") // relative to where r comes from
	r.commit(nil)
	url := s.URL + "/r/.git"
	with, _, err := f.get(f.nobody(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	delete(with, ".gitmodules")
	delete(with, "mod/.gitmodules")
	if d := cmp.Diff(map[string]string{"f": "1", "mod/s": "sub", "mod/inner/deep": "d"}, with); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	without, _, err := f.get(f.nobody(), url, map[string]string{"git.skipsubmodules": "true"})
	if err != nil || without["mod/s"] != "" || without["f"] != "1" {
		t.Errorf("%v, %v", without, err)
	}
	// A submodule must not be had from the daemon's disk.
	evil := newRepo(t, filepath.Join(dir, "evil"))
	evil.commit(map[string]string{"f": "1"})
	evil.git("-c", "protocol.file.allow=always", "submodule", "add", "--quiet", "file://"+inner.dir, "mod")
	evil.commit(nil)
	if files, _, err := f.get(f.nobody(), s.URL+"/evil/.git", nil); err == nil || !strings.Contains(err.Error(), "submodules") {
		t.Errorf("%v, %v", files, err)
	}
}

func TestKeepGitDir(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	dir := t.TempDir()
	r := newRepo(t, filepath.Join(dir, "r"))
	commit := r.commit(map[string]string{"f": "1"})
	r.git("tag", "-a", "v1", "-m", "tag")
	s := serve(t, dir, "me:hush")
	url := strings.Replace(s.URL, "://", "://me:hush@", 1) + "/r/.git"
	attrs := map[string]string{"git.keepgitdir": "true"}
	for _, ref := range []string{"", "#main", "#v1", "#" + commit} {
		p, err := f.source.Pin(t.Context(), f.nobody(), request(url+ref, attrs))
		if err != nil {
			t.Fatal(err)
		}
		layer, err := p.Fetch(t.Context(), f.nobody())
		if err != nil {
			t.Fatal(err)
		}
		out := t.TempDir()
		unpack(t, f.store, layer, out)
		if err := layer.Release(); err != nil {
			t.Error(err)
		}
		check := &repo{t, out}
		if got := check.git("-c", "safe.directory=*", "rev-parse", "HEAD"); got != commit {
			t.Errorf("%s: HEAD is %s", ref, got)
		}
		if got := check.git("-c", "safe.directory=*", "status", "--porcelain"); got != "" {
			t.Errorf("%s: status %q", ref, got)
		}
		if ref == "#v1" {
			check.git("rev-parse", "--verify", "v1^{tag}")
		}
		if b, err := os.ReadFile(filepath.Join(out, ".git/config")); err != nil || strings.Contains(string(b), "hush") || !strings.Contains(string(b), s.URL) {
			t.Errorf("%s: config %s, %v", ref, b, err)
		}
	}
}

func TestCommitTimes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	dir := t.TempDir()
	newRepo(t, filepath.Join(dir, "r")).commit(map[string]string{"d/f": "1"})
	s := serve(t, dir, "")
	p, err := f.source.Pin(t.Context(), f.nobody(), request(s.URL+"/r/.git", map[string]string{"git.mtime": "commit"}))
	if err != nil {
		t.Fatal(err)
	}
	layer, err := p.Fetch(t.Context(), f.nobody())
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	unpack(t, f.store, layer, out)
	if err := layer.Release(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"d", "d/f"} {
		if fi, err := os.Stat(filepath.Join(out, name)); err != nil || fi.ModTime().Unix() != 1600000000 {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
	}
}

// A checkout with the old permissions is another one than that of the same commit with today's.
func TestOldModes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	dir := t.TempDir()
	newRepo(t, filepath.Join(dir, "r")).commit(map[string]string{"d/f": "1", "x*": "2"})
	s := serve(t, dir, "")
	keys := map[string]bool{}
	for _, old := range []bool{false, true, false} {
		r := request(s.URL+"/r/.git", nil)
		r.OldModes = old
		p, err := f.source.Pin(t.Context(), f.nobody(), r)
		if err != nil {
			t.Fatal(err)
		}
		keys[fmt.Sprint(p.Key())] = true
		layer, err := p.Fetch(t.Context(), f.nobody())
		if err != nil {
			t.Fatal(err)
		}
		tree, err := f.store.Tree(t.Context(), layer)
		if err != nil {
			t.Fatal(err)
		}
		plain := uint32(0o644)
		if old {
			plain = 0o666
		}
		for name, want := range map[string]uint32{"d": 0o755, "d/f": plain, "x": 0o755} {
			if e, err := tree.Stat(t.Context(), name); err != nil || e.Mode&0o7777 != want {
				t.Errorf("old %t: %s has mode %o (%v), want %o", old, name, e.Mode, err, want)
			}
		}
		if err := layer.Release(); err != nil {
			t.Error(err)
		}
	}
	if len(keys) != 2 {
		t.Errorf("keys %v", keys)
	}
}

func TestDumbServer(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	dir := t.TempDir()
	r := newRepo(t, filepath.Join(dir, "r"))
	r.commit(map[string]string{"f": "1"})
	r.commit(map[string]string{"f": "2"})
	r.git("update-server-info")
	s := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(s.Close)
	files, _, err := f.get(f.nobody(), s.URL+"/r/.git#main", nil)
	if err != nil || files["f"] != "2" {
		t.Errorf("%v, %v", files, err)
	}
}

func TestConcurrent(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	dir := t.TempDir()
	r := newRepo(t, filepath.Join(dir, "r"))
	for i := range 4 {
		r.commit(map[string]string{"f": fmt.Sprint(i)})
		r.git("branch", fmt.Sprint("b", i))
	}
	s := serve(t, dir, "")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			files, _, err := f.get(f.nobody(), fmt.Sprintf("%s/r/.git#b%d", s.URL, i%4), nil)
			if err != nil || files["f"] != fmt.Sprint(i%4) {
				t.Errorf("%v, %v", files, err)
			}
		})
	}
	wg.Wait()
	if left, err := filepath.Glob(filepath.Join(f.root, checkoutPattern)); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestNoGit(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.source.o.Git = "no-such-git"
	_, err := f.source.Pin(t.Context(), f.nobody(), request("https://host.invalid/r", nil))
	if !errors.Is(err, ErrNoGit) || !strings.Contains(err.Error(), "install the package git") {
		t.Errorf("error %v", err)
	}
}
