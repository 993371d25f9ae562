package fstree

import (
	"context"
	"fmt"
	"io/fs"
	"strings"

	"github.com/moby/patternmatcher"
)

// Select calls fn for what is at root and inside, as [Walk] does, as far as the patterns of o let it: see [DigestOptions]. The
// entry at root is always among them. A directory that no pattern wants comes right before the first thing inside that one
// does.
func Select(ctx context.Context, t Tree, root string, o DigestOptions, fn func(Entry) error) error {
	s := selection{root: root, fn: fn}
	var err error
	if len(o.Include) > 0 {
		if s.include, err = matcher(o.Include); err != nil {
			return fmt.Errorf("include patterns: %w", err)
		}
	}
	if len(o.Exclude) > 0 {
		if s.exclude, err = matcher(o.Exclude); err != nil {
			return fmt.Errorf("exclude patterns: %w", err)
		}
	}
	if s.include == nil && s.exclude == nil {
		return Walk(ctx, t, root, fn)
	}
	return Walk(ctx, t, root, s.visit)
}

// matcher takes patterns that begin with a slash, too: it is always the root that they are relative to.
func matcher(patterns []string) (*patternmatcher.PatternMatcher, error) {
	rel := make([]string, len(patterns))
	for i, p := range patterns {
		p = strings.TrimSpace(p)
		p, not := strings.CutPrefix(p, "!")
		if p = strings.TrimLeft(p, "/"); p == "" {
			p = "."
		}
		if rel[i] = p; not {
			rel[i] = "!" + p
		}
	}
	return patternmatcher.New(rel)
}

type selection struct {
	root             string
	include, exclude *patternmatcher.PatternMatcher
	fn               func(Entry) error
	dirs             []level // from the root down to the entry before
}

// level is a directory on the way.
type level struct {
	Entry
	told       bool // fn knows it
	inc, excl  patternmatcher.MatchInfo
	incM, excM bool
}

func (s *selection) visit(e Entry) error {
	if e.Path == s.root {
		s.dirs = append(s.dirs, level{Entry: e, told: true})
		return s.fn(e)
	}
	for !within(s.dirs[len(s.dirs)-1].Path, parent(e.Path)) {
		s.dirs = s.dirs[:len(s.dirs)-1]
	}
	l := level{Entry: e}
	if err := s.match(&l); err != nil {
		return err
	}
	wanted := (s.include == nil || l.incM) && !l.excM
	if wanted {
		for i := range s.dirs {
			if d := &s.dirs[i]; !d.told {
				d.told = true
				if err := s.fn(d.Entry); err != nil {
					return err
				}
			}
		}
		l.told = true
		if err := s.fn(e); err != nil {
			return err
		}
	}
	if !e.IsDir() {
		return nil
	}
	if l.excM && !s.exclude.Exclusions() {
		return fs.SkipDir // nothing inside can come back
	}
	s.dirs = append(s.dirs, l)
	return nil
}

// match sets what the patterns say of l.
func (s *selection) match(l *level) (err error) {
	up := &s.dirs[len(s.dirs)-1]
	rel := l.Path
	if s.root != "" {
		rel = rel[len(s.root)+1:]
	}
	if s.include != nil {
		if l.incM, l.inc, err = s.include.MatchesUsingParentResults(rel, up.inc); err != nil {
			return fmt.Errorf("include patterns: %w", err)
		}
	}
	if s.exclude != nil {
		if l.excM, l.excl, err = s.exclude.MatchesUsingParentResults(rel, up.excl); err != nil {
			return fmt.Errorf("exclude patterns: %w", err)
		}
	}
	return nil
}
