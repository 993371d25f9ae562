package filesync

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	gofs "io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/go-archive"
	"github.com/moby/patternmatcher/ignorefile"
	"github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc/metadata"
)

// The files of a context that a .dockerignore leaves are those that docker's command line packs, on 10,000 random patterns.
func TestIgnoredAsByDocker(t *testing.T) {
	t.Parallel()
	const lists, perList = 2500, 4
	r := rand.New(rand.NewPCG(1, 2))
	dir := randomFiles(t, r)
	seen := map[int]int{}
	for range lists {
		var text strings.Builder
		wild := false // an exception with a wildcard: docker's classic builder misses it below directories that are ignored
		for range perList {
			p := randomPattern(r)
			wild = wild || strings.HasPrefix(p, "!") && strings.ContainsAny(p, "*?[")
			text.WriteString(p + "\n")
		}
		patterns, err := ignorefile.ReadAll(strings.NewReader(text.String()))
		if err != nil {
			t.Fatal(err)
		}
		want, wantErr := packedByDocker(dir, patterns)
		got, err := sentBySession(t.Context(), dir, patterns)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: error %v, docker's is %v", patterns, err, wantErr)
		}
		seen[len(got)]++
		missing := slices.DeleteFunc(slices.Clone(want), func(f string) bool { return slices.Contains(got, f) })
		if len(missing) > 0 || !wild && len(got) != len(want) {
			t.Errorf("%q: sent %q, docker packs %q", patterns, got, want)
		}
	}
	if len(seen) < 10 {
		t.Errorf("patterns that ignore nearly all or nothing try little: %v", seen)
	}
}

// randomFiles makes a tree of short names, so that patterns meet them.
func randomFiles(t *testing.T, r *rand.Rand) string {
	t.Helper()
	dir := t.TempDir()
	for range 120 {
		var parts []string
		for range 1 + r.IntN(4) {
			parts = append(parts, randomName(r))
		}
		name := filepath.Join(dir, filepath.Join(parts...)) + ".f"
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func randomName(r *rand.Rand) string {
	return []string{"a", "b", "ab", "ba", ".c", "a.b", "d e"}[r.IntN(7)]
}

func randomPattern(r *rand.Rand) string {
	var parts []string
	for range 1 + r.IntN(3) {
		parts = append(parts, []string{randomName(r), randomName(r), "*", "**", "?", "a*", "*b", "[ab]", "[^a]", "..", ".", "*.f", "a.f", `\a`}[r.IntN(14)])
	}
	p := strings.Join(parts, "/")
	if r.IntN(8) == 0 {
		p = "/" + p
	}
	if r.IntN(8) == 0 {
		p += "/"
	}
	if r.IntN(3) == 0 {
		p = "!" + p
	}
	return p
}

// packedByDocker lists the files that docker's command line would send to a builder without sessions.
func packedByDocker(dir string, patterns []string) (names []string, err error) {
	rc, err := archive.TarWithOptions(dir, &archive.TarOptions{ExcludePatterns: patterns})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	tr := tar.NewReader(rc)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return names, nil
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeReg {
			names = append(names, path.Clean(h.Name))
		}
	}
}

// sentBySession lists the files that a session would send.
func sentBySession(ctx context.Context, dir string, patterns []string) (names []string, err error) {
	md := metadata.MD{}
	encode(md, keyExclude, patterns)
	src, err := (&provider{}).open(Dir{Path: dir}, md)
	if err != nil {
		return nil, err
	}
	err = src.Walk(ctx, func(st *types.Stat) error {
		if gofs.FileMode(st.Mode).IsRegular() {
			names = append(names, st.Path)
		}
		return nil
	})
	return names, err
}
