package git

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/util/gitutil"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/source"
)

const (
	reposDir        = "repos"
	checkoutPattern = "checkout-*"
	// keepRepos is how many shared repositories are kept over a restart; those used last stay.
	keepRepos = 64
	// keepFor is how long one is kept without being used.
	keepFor = 14 * 24 * time.Hour
)

// prepareRoot makes the directories, removes checkouts that a crash left, and shared repositories nobody has used for long.
func prepareRoot(root string) error {
	repos := filepath.Join(root, reposDir)
	if err := os.MkdirAll(repos, 0o700); err != nil {
		return err
	}
	left, err := filepath.Glob(filepath.Join(root, checkoutPattern))
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(repos)
	if err != nil {
		return err
	}
	used := map[string]time.Time{}
	var all []string
	for _, e := range entries {
		if fi, err := e.Info(); err == nil {
			p := filepath.Join(repos, e.Name())
			used[p] = fi.ModTime()
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b string) int { return used[b].Compare(used[a]) })
	for i, p := range all {
		if i >= keepRepos || time.Since(used[p]) > keepFor {
			left = append(left, p)
		}
	}
	for _, p := range left {
		if err := os.RemoveAll(p); err != nil {
			return err
		}
	}
	return nil
}

// withRepository calls f with the shared repository of q's remote, locked, after p's object was brought there.
func (s *Source) withRepository(ctx context.Context, env source.Env, q *query, p pin, f func(g *git, repo string) error) error {
	if err := s.Supported(); err != nil {
		return err
	}
	// Object formats cannot be mixed in a repository.
	name := digest.FromString(fmt.Sprintf("%d %s", len(p.Object), q.remote)).Encoded()
	unlock, err := s.locks.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	g, done, err := s.command(ctx, env, q)
	if err != nil {
		return err
	}
	defer done()
	repo := filepath.Join(s.o.Root, reposDir, name)
	g = g.in(repo)
	err = s.bring(ctx, g, repo, q, p)
	if said(err, "not a git repository", "corrupt", "bad object", "unable to read") {
		// The shared repository is only a cache: begin again with an empty one.
		s.o.Logger.Warn("shared git repository is damaged", "remote", q.remote, "error", err)
		if err = os.RemoveAll(repo); err == nil {
			err = s.bring(ctx, g, repo, q, p)
		}
	}
	if err != nil {
		return fmt.Errorf("fetch %s: %w", q.remote, err)
	}
	if err := q.verifyChecksum(ctx, g, p); err != nil {
		return err
	}
	return f(g, repo)
}

// bring makes sure that the shared repository exists and has p's object with all that a checkout of it takes.
func (s *Source) bring(ctx context.Context, g *git, repo string, q *query, p pin) error {
	if err := s.open(ctx, g, repo, len(p.Object) == 64); err != nil {
		return err
	}
	if complete(ctx, g, p) {
		return nil
	}
	// A fetch that was killed leaves it, and no other can run: the repository is locked.
	for _, name := range []string{"shallow.lock", "config.lock", "packed-refs.lock"} {
		if err := os.Remove(filepath.Join(repo, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	var errs []error
	for _, how := range ways(q, p) {
		_, err := g.run(ctx, how...)
		if said(err, "--depth", "shallow capabilities") {
			_, err = g.run(ctx, slices.DeleteFunc(slices.Clone(how), func(a string) bool { return a == depth })...) // a dumb server
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil && exists(ctx, g, p.Object) {
			return mark(ctx, g, p)
		}
		errs = append(errs, err)
	}
	if err := errs[len(errs)-1]; err != nil {
		return err
	}
	return fmt.Errorf("the repository has no object %s (any more)", p.Object)
}

const depth = "--depth=1"

// ways lists fetches that may bring p, cheapest first: the ref it was found under, the object itself where the server allows
// it, all branches and tags.
func ways(q *query, p pin) [][]string {
	var out [][]string
	base := []string{"fetch", "--no-tags", "--no-write-fetch-head", "--force"}
	if p.Ref != p.Object && !q.fetchByCommit && !gitutil.IsCommitSHA(p.Ref) {
		out = append(out, slices.Concat(base, []string{depth, "--", q.remote, p.Ref + ":refs/slipway/fetched"}))
	}
	out = append(out, slices.Concat(base, []string{depth, "--", q.remote, p.Object}))
	if !q.fetchByCommit {
		out = append(out, slices.Concat(base, []string{"--", q.remote, "refs/heads/*:refs/slipway/all/heads/*", "refs/tags/*:refs/slipway/all/tags/*"}),
			slices.Concat(base, []string{"--unshallow", "--", q.remote, "refs/heads/*:refs/slipway/all/heads/*", "refs/tags/*:refs/slipway/all/tags/*"}))
	}
	return out
}

// open makes the repository if it is not there, and notes that it is used.
func (s *Source) open(ctx context.Context, g *git, repo string, sha256 bool) error {
	now := time.Now()
	err := os.Chtimes(repo, now, now)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fresh, err := os.MkdirTemp(filepath.Dir(repo), ".new-*")
	if err != nil {
		return err
	}
	if _, err := g.in(fresh).run(ctx, initArgs(sha256, "--bare", ".")...); err != nil {
		return errors.Join(err, os.RemoveAll(fresh))
	}
	if err := os.Rename(fresh, repo); err != nil {
		return errors.Join(err, os.RemoveAll(fresh))
	}
	return nil
}

func initArgs(sha256 bool, args ...string) []string {
	out := []string{"init", "--quiet"}
	if sha256 {
		out = append(out, "--object-format=sha256")
	}
	return append(out, args...)
}

func exists(ctx context.Context, g *git, object string) bool {
	_, err := g.quiet().run(ctx, "cat-file", "-e", object)
	return err == nil
}

// complete tells whether a former fetch of p ended: then it was marked.
func complete(ctx context.Context, g *git, p pin) bool {
	out, err := g.quiet().run(ctx, "rev-parse", "--verify", "--quiet", markOf(p))
	return err == nil && strings.TrimSpace(out) == p.Object
}

// mark keeps p's object, and says that all of it is there.
func mark(ctx context.Context, g *git, p pin) error {
	_, err := g.run(ctx, "update-ref", markOf(p), p.Object)
	return err
}

func markOf(p pin) string { return "refs/slipway/pin/" + p.Object }

// quiet is git whose complaints nobody hears: a question that may be answered with no.
func (g *git) quiet() *git {
	c := *g
	c.log = nil
	return &c
}

// verifyChecksum holds what came against the checksum: it may be the commit's or the tag's, and shortened.
func (q *query) verifyChecksum(ctx context.Context, g *git, p pin) error {
	if q.checksum == "" || strings.HasPrefix(p.Object, q.checksum) {
		return nil
	}
	commit, err := commitOf(ctx, g, p)
	if err != nil {
		return err
	}
	if strings.HasPrefix(commit, q.checksum) {
		return nil
	}
	return q.mismatch(p.Object + " or " + commit)
}

// commitOf is the commit that p's object is or points at.
func commitOf(ctx context.Context, g *git, p pin) (string, error) {
	out, err := g.run(ctx, "rev-parse", "--verify", p.Object+"^{commit}")
	return strings.TrimSpace(out), err
}
