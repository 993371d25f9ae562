package classic

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// copying is an ADD or a COPY whose sources are known.
type copying struct {
	name  string // "ADD" or "COPY"
	infos []copied
	dest  string
	chown string
	// keepOwners copies owners as they are; otherwise files are chown's, or root's.
	keepOwners bool
	text       string // the instruction
}

// copied is one source.
type copied struct {
	state  llb.State
	path   string
	sum    string
	unpack bool // an archive, of which the contents are wanted
}

func (s *stage) add(ctx context.Context, c *instructions.AddCommand) error {
	if option := firstSet(map[string]bool{
		"chmod": c.Chmod != "", "link": c.Link, "checksum": c.Checksum != "", "keep-git-dir": c.KeepGitDir != nil,
		"exclude": len(c.ExcludePatterns) > 0, "unpack": c.Unpack != nil,
	}); option != "" {
		return needsBuildKit(option)
	}
	if len(c.SourceContents) > 0 {
		return failed("ADD failed: here-documents require BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build images with BuildKit enabled")
	}
	in := copying{name: "ADD", dest: c.DestPath, chown: c.Chown, text: c.String()}
	var err error
	if in.infos, err = s.sources(ctx, s.b.source.files, &c.SourcesAndDest, true); err != nil {
		return fmt.Errorf("ADD failed: %w", err)
	}
	return s.perform(ctx, in)
}

func (s *stage) copy(ctx context.Context, c *instructions.CopyCommand) error {
	if option := firstSet(map[string]bool{
		"chmod": c.Chmod != "", "link": c.Link, "parents": c.Parents, "exclude": len(c.ExcludePatterns) > 0,
	}); option != "" {
		return needsBuildKit(option)
	}
	if len(c.SourceContents) > 0 {
		return failed("COPY failed: here-documents require BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build images with BuildKit enabled")
	}
	in := copying{name: "COPY", dest: c.DestPath, chown: c.Chown, text: c.String()}
	from := s.b.source.files
	var err error
	if c.From != "" {
		if from, err = s.from(ctx, c.From); err != nil {
			return err
		}
		in.keepOwners = c.Chown == ""
	}
	if in.infos, err = s.sources(ctx, from, &c.SourcesAndDest, false); err != nil {
		return fmt.Errorf("COPY failed: %w", err)
	}
	return s.perform(ctx, in)
}

// perform copies. No container is shown: docker makes none for it.
func (s *stage) perform(ctx context.Context, in copying) error {
	if len(in.infos) > 1 && !strings.HasSuffix(in.dest, "/") {
		return failed("When using %s with more than one source file, the destination must be a directory and end with a /", in.name)
	}
	made := s.config.noted(in.comment(), false)
	found, err := s.probe(ctx, made)
	if err != nil {
		return err
	}
	next := s.state.File(s.action(in), llb.WithCustomName(in.text))
	if s.fs, _, err = s.b.perform(ctx, next, s.platform, nil); err != nil {
		return fmt.Errorf("failed to copy files: %w", err)
	}
	s.state = next
	if found != nil {
		return s.reuse(*found, true)
	}
	return s.commit(ctx, step{made: made, changes: true})
}

// comment is what histories tell of it; there is no space after an owner, as docker has none there.
func (in copying) comment() string {
	sum := in.infos[0].sum
	if len(in.infos) > 1 {
		var sums []string
		for _, i := range in.infos {
			sums = append(sums, i.sum)
		}
		sum = joinSums("multi", sums)
	}
	owner := ""
	if in.chown != "" {
		owner = "--chown=" + in.chown
	}
	return fmt.Sprintf("%s %s%s in %s ", in.name, owner, sum, in.dest)
}

// action is the copying as one change of the file system.
func (s *stage) action(in copying) *llb.FileAction {
	dest := in.dest
	if !path.IsAbs(dest) {
		dest = path.Join("/", s.config.WorkingDir, dest)
		if strings.HasSuffix(in.dest, "/") || in.dest == "." {
			dest += "/"
		}
	}
	var a *llb.FileAction
	for _, i := range in.infos {
		opts := []llb.CopyOption{&llb.CopyInfo{FollowSymlinks: true, CopyDirContentsOnly: true, AttemptUnpack: i.unpack, CreateDestPath: true}}
		switch {
		case i.unpack: // owners are the archive's, whatever is asked for
		case in.chown != "":
			opts = append(opts, llb.WithUser(in.chown))
		case !in.keepOwners:
			opts = append(opts, llb.WithUser("0:0"))
		}
		if a == nil {
			a = llb.Copy(i.state, i.path, dest, opts...)
		} else {
			a = a.Copy(i.state, i.path, dest, opts...)
		}
	}
	return a
}

// firstSet is the first option, by name, that is set.
func firstSet(options map[string]bool) (first string) {
	for name, set := range options {
		if set && (first == "" || name < first) {
			first = name
		}
	}
	return first
}
