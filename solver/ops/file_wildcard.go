package ops

import (
	"context"
	"path"
	"strings"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// hasWildcard says whether a path is a pattern.
func hasWildcard(p string) bool {
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '\\':
			i++
		case '*', '?', '[':
			return true
		}
	}
	return false
}

// wildcards lists the paths that match a pattern. Up to the first component with a wildcard the pattern is a path, in which
// symlinks are followed, the last one only with follow; from there on only real directories are entered. A path without
// wildcards is returned as it is, whether it exists or not.
func wildcards(ctx context.Context, t fstree.Tree, pattern string, follow bool) ([]string, error) {
	parts := strings.Split(cleanRel(pattern), "/")
	n := 0
	for n < len(parts) && !hasWildcard(parts[n]) {
		n++
	}
	if n == len(parts) {
		return []string{pattern}, nil
	}
	base, err := resolveSource(ctx, t, path.Join(parts[:n]...), follow)
	if err != nil {
		return nil, err
	}
	found := []string{base}
	for _, part := range parts[n:] {
		if found, err = matchIn(ctx, t, found, part); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// matchIn lists what in the directories among dirs has a name that matches.
func matchIn(ctx context.Context, t fstree.Tree, dirs []string, pattern string) ([]string, error) {
	var out []string
	for _, dir := range dirs {
		e, err := t.Stat(ctx, dir)
		if err != nil {
			return nil, err
		}
		if !e.IsDir() {
			continue
		}
		entries, err := t.ReadDir(ctx, dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			// A pattern that is none matches nothing, as it always was.
			if ok, err := path.Match(pattern, e.Name()); ok && err == nil {
				out = append(out, e.Path)
			}
		}
	}
	return out, nil
}

// resolveSource is the path of a source: the last component is followed only if asked for.
func resolveSource(ctx context.Context, t fstree.Tree, p string, follow bool) (string, error) {
	// A trailing slash would follow a symlink, which is for follow alone to say.
	return fstree.Resolve(ctx, t, cleanRel(p), follow)
}
