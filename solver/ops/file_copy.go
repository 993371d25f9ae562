package ops

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/patternmatcher"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	dmode "github.com/tonistiigi/dchapes-mode"
	"golang.org/x/sys/unix"
)

// copy does a copy action. Times of what is copied are kept unless the action sets one; directories that have to be made above
// it are of now.
func (r *fileRun) copy(ctx context.Context, src fstree.Tree, dst *fstree.Delta, a *pb.FileActionCopy, who *owner) error {
	if !a.CreateDestPath {
		p, err := fstree.ResolveMissing(ctx, dst, cleanRel(a.Dest), true)
		if err == nil {
			_, err = dst.Stat(ctx, joinRel(path.Dir("/"+p)))
		}
		if err != nil {
			return fmt.Errorf("failed to stat %s: %w", a.Dest, pathError("lstat", path.Dir(a.Dest), err))
		}
	}
	sources := []string{a.Src}
	if a.AllowWildcard {
		var err error
		if sources, err = wildcards(ctx, src, a.Src, a.FollowSymlink); err != nil {
			return missing(a.Src, err)
		}
		if len(sources) == 0 && !a.AllowEmptyWildcard {
			return notThere(a.Src)
		}
	}
	for _, s := range sources {
		if a.AttemptUnpackDockerCompatibility {
			ok, err := r.unpack(ctx, src, s, dst, a, who)
			if err != nil {
				return fmt.Errorf("unpack %s: %w", s, err)
			}
			if ok {
				continue
			}
		}
		c, err := r.copier(src, dst, a, who)
		if err != nil {
			return err
		}
		if err := c.run(ctx, s, a.Dest, a); err != nil {
			return err
		}
	}
	return nil
}

// missing is what a source that is not there is complained about with.
func missing(src string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return notThere(src)
	}
	return err
}

func notThere(src string) error { return pathError("lstat", "/"+cleanRel(src), fs.ErrNotExist) }

// copier copies one source. Its rules are those of "cp -a" as BuildKit's clients know them.
type copier struct {
	op               *fileRun
	src              fstree.Tree
	dst              *fstree.Delta
	who              *owner // nil keeps owners
	mode             *uint32
	modeSet          *dmode.Set
	time             *time.Time // nil keeps times
	include, exclude *patternmatcher.PatternMatcher
	replace          bool
	// links maps the first name of a file in src to where it was copied, so that hard links stay such.
	links map[string]string
	// parents are the directories above what is copied now, some of which may not be made yet.
	parents []copyParent
}

// copyParent is a directory that matched no pattern itself: it is made when something in it does.
type copyParent struct {
	src  fstree.Entry
	dst  string
	made bool
}

func (r *fileRun) copier(src fstree.Tree, dst *fstree.Delta, a *pb.FileActionCopy, who *owner) (*copier, error) {
	c := &copier{op: r, src: src, dst: dst, who: who, replace: a.AlwaysReplaceExistingDestPaths, links: map[string]string{}}
	if a.Timestamp != -1 {
		t := time.Unix(0, a.Timestamp)
		c.time = &t
	}
	if a.ModeStr != "" {
		set, err := dmode.ParseWithUmask(a.ModeStr, 0)
		if err != nil {
			return nil, fmt.Errorf("mode %q: %w", a.ModeStr, err)
		}
		c.modeSet = &set
	} else if a.Mode != -1 {
		m := uint32(a.Mode) & 0o7777
		c.mode = &m
	}
	var err error
	if len(a.IncludePatterns) > 0 {
		if c.include, err = patternmatcher.New(a.IncludePatterns); err != nil {
			return nil, fmt.Errorf("invalid includepatterns: %s: %w", a.IncludePatterns, err)
		}
	}
	if len(a.ExcludePatterns) > 0 {
		if c.exclude, err = patternmatcher.New(a.ExcludePatterns); err != nil {
			return nil, fmt.Errorf("invalid excludepatterns: %s: %w", a.ExcludePatterns, err)
		}
	}
	return c, nil
}

// run copies src to dest. What dest means depends on what is there and on whether it ends in a slash.
func (c *copier) run(ctx context.Context, src, dest string, a *pb.FileActionCopy) error {
	if dir := destDir(dest); dir != "" {
		if err := c.mkdirAll(ctx, dir, true); err != nil {
			return err
		}
	}
	target, err := fstree.ResolveMissing(ctx, c.dst, cleanRel(dest), true)
	if err != nil {
		return pathError("copy", dest, err)
	}
	p, err := resolveSource(ctx, c.src, src, a.FollowSymlink)
	if err != nil {
		return missing(src, err)
	}
	from, err := c.src.Stat(ctx, p)
	if err != nil {
		return missing(src, err)
	}
	to, err := c.dst.Stat(ctx, target)
	exists := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return pathError("copy", dest, err)
	}
	if exists && (from.IsDir() && !a.DirCopyContents || !from.IsDir() && to.IsDir()) {
		target = joinRel(target, path.Base("/"+cleanRel(src)))
	}
	above := path.Dir("/" + target)
	if a.DirCopyContents && from.IsDir() && !exists {
		above = target
	}
	if err := c.mkdirAll(ctx, above, false); err != nil {
		return err
	}
	return c.copy(ctx, from, "", target, false, patternmatcher.MatchInfo{}, patternmatcher.MatchInfo{})
}

// destDir is the directory that dest says must be there: itself if it ends in a slash, otherwise the one above.
func destDir(dest string) string {
	clean := path.Join("/", dest)
	if strings.HasSuffix(dest, "/") || strings.HasSuffix(dest, "/.") {
		return clean
	}
	return path.Dir(clean)
}

// mkdirAll makes directories above what is copied. With follow, p may hold symlinks.
func (c *copier) mkdirAll(ctx context.Context, p string, follow bool) error {
	dir := cleanRel(p)
	if follow {
		var err error
		if dir, err = fstree.ResolveMissing(ctx, c.dst, dir, true); err != nil {
			return pathError("mkdir", p, err)
		}
	}
	e := fstree.Entry{Path: dir, Mode: unix.S_IFDIR | 0o755, ModTime: c.op.now}
	if c.mode != nil {
		e.Mode = unix.S_IFDIR | *c.mode&0o777
	}
	if c.who != nil {
		e.UID, e.GID = c.who.uid, c.who.gid
	}
	if c.time != nil {
		e.ModTime = *c.time
	}
	if err := mkdirAll(ctx, c.dst, e, c.who); err != nil {
		return pathError("mkdir", p, err)
	}
	return nil
}

// copy copies one entry and what is inside. rel is its path from what the action names, "" for that itself. overwrite says
// that a directory that is there takes the attributes of the source.
func (c *copier) copy(ctx context.Context, from fstree.Entry, rel, target string, overwrite bool, inc, exc patternmatcher.MatchInfo) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	take, excluded := true, false
	if rel != "" {
		var err error
		if take, excluded, inc, exc, err = c.matches(rel, inc, exc); err != nil {
			return err
		}
		if !take && (!from.IsDir() || c.include == nil && (c.exclude == nil || !c.exclude.Exclusions())) {
			return nil
		}
	}
	if take {
		if err := c.makeParents(ctx, overwrite); err != nil {
			return err
		}
	}
	if from.IsDir() {
		return c.copyDir(ctx, from, rel, target, overwrite, take, excluded, inc, exc)
	}
	return c.copyFile(ctx, from, target)
}

// matches says whether a path is to be copied, and whether an exclude pattern is why not.
func (c *copier) matches(rel string, inc, exc patternmatcher.MatchInfo) (take, excluded bool, _, _ patternmatcher.MatchInfo, err error) {
	take = true
	if c.include != nil {
		if take, inc, err = c.include.MatchesUsingParentResults(rel, inc); err != nil {
			return false, false, inc, exc, fmt.Errorf("failed to match includepatterns: %w", err)
		}
	}
	if c.exclude != nil {
		if excluded, exc, err = c.exclude.MatchesUsingParentResults(rel, exc); err != nil {
			return false, false, inc, exc, fmt.Errorf("failed to match excludepatterns: %w", err)
		}
	}
	return take && !excluded, excluded, inc, exc, nil
}

func (c *copier) copyDir(ctx context.Context, from fstree.Entry, rel, target string, overwrite, take, excluded bool, inc, exc patternmatcher.MatchInfo) error {
	if take {
		if err := c.putDir(ctx, from, target, overwrite); err != nil {
			return err
		}
	}
	if excluded && !c.exclude.Exclusions() {
		return nil
	}
	c.parents = append(c.parents, copyParent{src: from, dst: target, made: take})
	defer func() { c.parents = c.parents[:len(c.parents)-1] }()
	entries, err := c.src.ReadDir(ctx, from.Path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := c.copy(ctx, e, joinRel(rel, e.Name()), joinRel(target, e.Name()), true, inc, exc); err != nil {
			return err
		}
	}
	return nil
}

// makeParents makes the directories that waited for something in them to match.
func (c *copier) makeParents(ctx context.Context, overwrite bool) error {
	for i, p := range c.parents {
		if p.made {
			continue
		}
		// A directory that is there keeps its attributes here, except for the mode.
		to, err := c.dst.Stat(ctx, p.dst)
		switch {
		case err == nil && to.IsDir():
			if overwrite {
				err = c.dst.Update(ctx, p.dst, func(e *fstree.Entry) { e.Mode = p.src.Mode })
			}
		case err == nil && !c.replace:
			err = fmt.Errorf("cannot copy to non-directory: /%s", p.dst)
		case err == nil || errors.Is(err, fs.ErrNotExist):
			err = c.put(ctx, p.src, p.dst)
		}
		if err != nil {
			return err
		}
		c.parents[i].made = true
	}
	return nil
}

// putDir makes a directory or, if it is there, brings its attributes up to date as far as overwrite allows.
func (c *copier) putDir(ctx context.Context, from fstree.Entry, target string, overwrite bool) error {
	to, err := c.dst.Stat(ctx, target)
	if errors.Is(err, fs.ErrNotExist) {
		return c.put(ctx, from, target)
	}
	if err != nil {
		return err
	}
	if !to.IsDir() {
		if !c.replace {
			return fmt.Errorf("cannot copy to non-directory: /%s", target)
		}
		if err := c.dst.RemoveAll(ctx, target); err != nil {
			return err
		}
		return c.put(ctx, from, target)
	}
	return c.dst.Update(ctx, target, func(e *fstree.Entry) {
		if overwrite {
			*e = c.merged(from, *e)
			return
		}
		e.ModTime = c.timeOf(from)
	})
}

// merged is a directory that takes the attributes of from and keeps extended attributes that from has not.
func (c *copier) merged(from, old fstree.Entry) fstree.Entry {
	e := c.entry(from, old.Path)
	for k, v := range old.Xattrs {
		if _, ok := from.Xattrs[k]; !ok {
			x := map[string]string{k: v}
			for k, v := range e.Xattrs {
				x[k] = v
			}
			e.Xattrs = x
		}
	}
	return e
}

func (c *copier) copyFile(ctx context.Context, from fstree.Entry, target string) error {
	to, err := c.dst.Stat(ctx, target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case to.IsDir() && !c.replace:
		return fmt.Errorf("cannot replace to directory /%s with file", target)
	default:
		if err := c.dst.RemoveAll(ctx, target); err != nil {
			return err
		}
	}
	if from.IsRegular() {
		first := from.Path
		if from.Hardlink != "" {
			first = from.Hardlink
		}
		if at, ok := c.links[first]; ok {
			return c.dst.Link(ctx, at, target)
		}
		c.links[first] = target
	}
	return c.put(ctx, from, target)
}
