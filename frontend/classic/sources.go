package classic

import (
	"context"
	"io/fs"
	"net/url"
	"path"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	fstypes "github.com/tonistiigi/fsutil/types"
)

// unnamed is the name of a downloaded file that has none of its own.
const unnamed = "__unnamed__"

// sources finds what an ADD or COPY copies out of a tree, which is nil where there is no context. ADD takes URLs, too, and the
// contents of archives.
func (s *stage) sources(ctx context.Context, from *tree, c *instructions.SourcesAndDest, add bool) (list []copied, err error) {
	for _, src := range c.SourcePaths {
		var found []copied
		switch {
		case isURL(src) && !add:
			return nil, failed("source can't be a URL for COPY")
		case isURL(src):
			found, err = s.download(ctx, src, c.DestPath)
		case from == nil:
			return nil, failed("missing build context")
		default:
			found, err = s.matching(ctx, from, src)
		}
		if err == nil && add && !isURL(src) {
			err = from.markArchives(ctx, found)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, found...)
	}
	if len(list) == 0 {
		return nil, failed("no source files were specified")
	}
	return list, nil
}

func isURL(s string) bool {
	return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")
}

// markArchives finds out which sources are to be unpacked.
func (t *tree) markArchives(ctx context.Context, list []copied) error {
	for i := range list {
		if strings.HasPrefix(list[i].sum, "dir:") {
			continue
		}
		st, at, err := t.stat(ctx, list[i].path)
		if err != nil {
			return err
		}
		if !fs.FileMode(st.Mode).IsRegular() {
			continue
		}
		head, err := t.fs.ReadFile(ctx, gwclient.ReadRequest{Filename: at, Range: &gwclient.FileRange{Length: archivePeek}})
		if err != nil {
			return err
		}
		list[i].unpack = isArchive(head)
	}
	return nil
}

// matching finds a source in a tree, or all that a pattern matches; it is held against whole paths.
func (s *stage) matching(ctx context.Context, from *tree, src string) (list []copied, err error) {
	name := strings.TrimPrefix(strings.TrimPrefix(src, "/"), "./")
	if !isPattern(name) {
		one, err := s.single(ctx, from, name)
		if err != nil {
			return nil, err
		}
		return []copied{one}, nil
	}
	err = from.walk(ctx, "", func(rel string, _ *fstypes.Stat) error {
		if ok, _ := filepath.Match(name, rel); !ok {
			return nil
		}
		one, err := s.single(ctx, from, rel)
		list = append(list, one)
		return err
	})
	return list, err
}

// isPattern tells whether a name is a pattern; a backslash takes the meaning of the next character.
func isPattern(name string) bool {
	for i := 0; i < len(name); i++ {
		switch name[i] {
		case '\\':
			i++
		case '*', '?', '[':
			return true
		}
	}
	return false
}

func (s *stage) single(ctx context.Context, from *tree, name string) (copied, error) {
	if clean := path.Clean(name); clean == ".." || strings.HasPrefix(clean, "../") {
		return copied{}, failed("forbidden path outside the build context: %s ()", name)
	}
	sum, err := from.sum(ctx, name)
	switch {
	case missing(err) && from == s.b.source.files:
		return copied{}, failed("file not found in build context or excluded by .dockerignore: stat %s: file does not exist", name)
	case missing(err):
		return copied{}, failed("stat %s: file does not exist", name)
	case err != nil:
		return copied{}, err
	}
	return copied{state: from.state, path: "/" + name, sum: sum}, nil
}

// download fetches a file for ADD. Its name is the URL's, or what the server calls it.
func (s *stage) download(ctx context.Context, src, dest string) ([]copied, error) {
	u, err := url.Parse(src)
	if err != nil {
		return nil, failed("%w", err)
	}
	name := ""
	if u.Path != "" && !strings.HasSuffix(u.Path, "/") {
		name = path.Base(u.Path)
	} else {
		res, err := s.b.bridge.ResolveSource(ctx, &pb.SourceOp{Identifier: src}, sourceresolver.Opt{LogName: "[internal] resolve " + src})
		if err != nil {
			return nil, err
		}
		if res.HTTP != nil && res.HTTP.Filename != "download" {
			name = path.Base(res.HTTP.Filename)
		}
	}
	if name == "" || name == "." || name == "/" {
		if strings.HasSuffix(dest, "/") {
			return nil, failed("cannot determine filename for source %s", src)
		}
		name = unnamed
	}
	st := llb.HTTP(src, llb.Filename(name), llb.Chmod(0o600), llb.WithCustomName("ADD "+src))
	ref, _, err := s.b.solve(ctx, st, nil)
	if err != nil {
		return nil, err
	}
	file := &tree{state: st, fs: ref}
	sum, err := file.sum(ctx, name)
	if err != nil {
		return nil, err
	}
	stat, _, err := file.stat(ctx, name)
	if err != nil {
		return nil, err
	}
	s.b.Output.Downloaded(stat.Size)
	s.b.Output.Text("\n")
	return []copied{{state: st, path: "/" + name, sum: sum}}, nil
}
