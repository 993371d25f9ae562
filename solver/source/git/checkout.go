package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/util/gitutil"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/blob"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// checkout makes a layer of p's files. The shared repository repo has the objects and is locked.
func (s *Source) checkout(ctx context.Context, g *git, repo string, q *query, p pin) (_ *layers.Ref, err error) {
	dir, err := os.MkdirTemp(s.o.Root, checkoutPattern)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	c := &worktree{g: g, repo: repo, q: q, p: p, tree: filepath.Join(dir, "tree")}
	c.gitDir = filepath.Join(dir, "git")
	if q.keepsGit() {
		c.gitDir = filepath.Join(c.tree, ".git")
	}
	if err := c.make(ctx); err != nil {
		return nil, fmt.Errorf("check out %s: %w", q.remote, err)
	}
	src, err := c.source(ctx)
	if err != nil {
		return nil, fmt.Errorf("check out %s: %w", q.remote, err)
	}
	return s.o.Store.Pack(ctx, src, layers.ImportOptions{
		Labels: layers.Labels{Description: "git snapshot for " + q.remote + "#" + q.ref, Use: layers.UseGit},
	})
}

// worktree is a checkout in the making.
type worktree struct {
	g      *git
	repo   string // the shared repository
	q      *query
	p      pin
	tree   string // the files
	gitDir string // of this checkout alone
}

func (c *worktree) make(ctx context.Context) error {
	if err := os.MkdirAll(c.tree, 0o700); err != nil {
		return err
	}
	c.g = c.g.in(c.tree)
	c.g.env = append(c.g.env, "GIT_DIR="+c.gitDir, "GIT_WORK_TREE="+c.tree)
	if _, err := c.g.run(ctx, initArgs(len(c.p.Object) == 64)...); err != nil {
		return err
	}
	// Relative URLs of submodules start from here.
	if _, err := c.g.run(ctx, "remote", "add", "--", "origin", c.q.remote); err != nil {
		return err
	}
	if err := c.objects(ctx); err != nil {
		return err
	}
	if err := c.checkout(ctx); err != nil {
		return err
	}
	if err := c.submodules(ctx); err != nil {
		return err
	}
	if c.q.keepsGit() {
		return c.tidy(ctx)
	}
	return nil
}

// checkout brings the files. Git's advice about detached heads is for who asked for it.
func (c *worktree) checkout(ctx context.Context) error {
	g, args := c.g, []string{"checkout", "--quiet", "--force", "--detach", c.p.Object}
	if c.q.advice {
		// The later configuration wins. "--detach" would say that it is known.
		g, args = g.with(config{"advice.detachedHead", "true"}), []string{"checkout", "--force", c.p.Object}
	}
	_, err := g.run(ctx, args...)
	return err
}

// objects makes p's objects available: borrowed, or copied where the repository stays.
func (c *worktree) objects(ctx context.Context) error {
	if !c.q.keepsGit() {
		info := filepath.Join(c.gitDir, "objects", "info")
		if err := os.MkdirAll(info, 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(info, "alternates"), []byte(filepath.Join(c.repo, "objects")+"\n"), 0o600); err != nil {
			return err
		}
		return copyShallow(c.repo, c.gitDir)
	}
	to := ""
	if !gitutil.IsCommitSHA(c.p.Ref) {
		to = ":" + c.p.Ref
	}
	// By the file protocol: a local clone would link files and trust what it finds. Only this one command may use it.
	_, err := c.g.with(config{"protocol.file.allow", "always"}).run(ctx,
		"fetch", "--quiet", "--update-head-ok", "--no-tags", "--no-write-fetch-head", depth, "--", "file://"+c.repo, "+"+markOf(c.p)+to)
	return err
}

// copyShallow says where the history was cut, so that nothing looks for what is behind.
func copyShallow(from, to string) error {
	b, err := os.ReadFile(filepath.Join(from, "shallow"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(to, "shallow"), b, 0o600)
}

func (c *worktree) submodules(ctx context.Context) error {
	if c.q.skipSubmodules {
		return nil
	}
	if fi, err := os.Lstat(filepath.Join(c.tree, ".gitmodules")); err != nil || !fi.Mode().IsRegular() {
		return nil // no submodules
	}
	update := []string{"submodule", "update", "--init", "--recursive"}
	_, err := c.g.run(ctx, append(update, depth)...)
	if err != nil && ctx.Err() == nil {
		// Not every server gives a commit that no ref points at without its history.
		_, err = c.g.run(ctx, update...)
	}
	if err != nil {
		return fmt.Errorf("update submodules: %w", err)
	}
	return nil
}

// tidy removes from a .git that stays what only says how and when it was made.
func (c *worktree) tidy(ctx context.Context) error {
	if _, err := c.g.run(ctx, "reflog", "expire", "--all", "--expire=now"); err != nil {
		return err
	}
	for _, name := range []string{"FETCH_HEAD", "ORIG_HEAD", "logs"} {
		if err := os.RemoveAll(filepath.Join(c.gitDir, name)); err != nil {
			return err
		}
	}
	return nil
}

// source yields the files for the layer.
func (c *worktree) source(ctx context.Context) (fstree.Source, error) {
	tree := blob.DirTree(c.tree)
	if c.q.subdir != "" {
		// Stat follows no symlink, so neither does the path.
		e, err := tree.Stat(ctx, c.q.subdir)
		if err != nil || !e.IsDir() {
			return nil, fmt.Errorf("subdirectory %q: not a directory of the repository", c.q.subdir)
		}
		tree = fstree.Sub(tree, c.q.subdir)
	}
	f := &files{src: fstree.NewSource(tree), keepGit: c.q.keepsGit(), plain: 0o644}
	if c.q.oldModes {
		f.plain = 0o666
	}
	if c.q.commitTimes {
		out, err := c.g.run(ctx, "show", "--no-patch", "--format=%ct", c.p.Object+"^{commit}")
		if err != nil {
			return nil, err
		}
		seconds, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("time of the commit: %w", err)
		}
		f.time = time.Unix(seconds, 0)
	}
	return f, nil
}

// files is a worktree as a layer has it: everything is root's, permissions are those that git keeps, whatever the daemon's
// umask and groups are, and what git left for itself stays out unless it is wanted.
type files struct {
	src     fstree.Source
	keepGit bool
	plain   uint32    // of what nobody executes
	skip    string    // a directory being left out
	time    time.Time // for everything; zero keeps what the checkout gave
}

// Next implements [fstree.Source].
func (f *files) Next(ctx context.Context) (fstree.Entry, func(context.Context) (io.ReadCloser, error), error) {
	for {
		e, open, err := f.src.Next(ctx)
		if err != nil {
			return e, open, err
		}
		if e.Path == "" || f.skip != "" && strings.HasPrefix(e.Path, f.skip) {
			continue
		}
		if !f.keepGit && path.Base(e.Path) == ".git" {
			// git itself tracks nothing of this name: it is a submodule's link to a repository that will be gone.
			f.skip = e.Path + "/"
			continue
		}
		e.UID, e.GID, e.Xattrs, e.Implied, e.Opaque = 0, 0, nil, false, false
		switch {
		case e.IsDir() || e.IsRegular() && e.Mode&0o100 != 0:
			e.Mode = e.Mode&fstree.ModeType | 0o755
		case e.IsRegular():
			e.Mode = e.Mode&fstree.ModeType | f.plain
		}
		if !f.time.IsZero() {
			e.ModTime = f.time
		}
		return e, open, nil
	}
}
