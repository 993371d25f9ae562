package classic

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerui"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/util/archiveutil"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	"github.com/slipwaybuild/slipway/frontend"
	"github.com/slipwaybuild/slipway/session/upload"
)

const (
	defaultDockerfile = "Dockerfile"
	ignoreFile        = ".dockerignore"
	// archivePeek is how much of a context is looked at to tell an archive from a Dockerfile.
	archivePeek = 1024
	// tarBlock is the size of a header in a tar.
	tarBlock = 512
)

// source is where a build comes from.
type source struct {
	dockerfile     []byte
	dockerfileName string
	// files is the context; nil for a build that has none, being nothing but a Dockerfile.
	files *tree
}

// tree is a directory that instructions copy from: the context, or the file system of an image.
type tree struct {
	state llb.State
	fs    frontend.Reference // of the state; nil for an empty one
}

// openContext finds the context and the Dockerfile in it.
func (b *builder) openContext(ctx context.Context, opts map[string]string) error {
	where, name := opts["context"], opts["filename"]
	if where == "" {
		return b.noDockerfile(name)
	}
	st, isGit, err := dockerui.DetectGitContext(where, nil)
	if isGit {
		if err != nil {
			return invalid(err)
		}
		return b.openTree(ctx, *st, name, true)
	}
	st, file, ok := dockerui.DetectHTTPContext(where)
	if !ok {
		return invalid(fmt.Errorf("context %q is neither a git repository nor an http(s) URL", where))
	}
	sent := strings.HasPrefix(where, "http://"+upload.Host+"/")
	ref, _, err := b.solve(ctx, *st, nil)
	if err != nil {
		return err
	}
	head, err := ref.ReadFile(ctx, gwclient.ReadRequest{Filename: file, Range: &gwclient.FileRange{Length: archivePeek}})
	if err != nil && !sent {
		return &Error{err: fmt.Errorf("error downloading remote context %s: %w", where, err)}
	}
	if err != nil {
		return fmt.Errorf("read the context: %w", err)
	}
	switch {
	case isArchive(head):
		unpacked := llb.Scratch().File(llb.Copy(*st, "/"+file, "/", &llb.CopyInfo{AttemptUnpack: true}), dockerui.WithInternalName("unpack the context"))
		return b.openTree(ctx, unpacked, name, !sent)
	case len(head) == 0:
		return b.noDockerfile(name)
	case sent:
		return failed("archive/tar: invalid tar header")
	}
	b.source.dockerfileName = defaultDockerfile
	b.source.dockerfile, err = ref.ReadFile(ctx, gwclient.ReadRequest{Filename: file})
	return err
}

// isArchive tells whether a file begins as an archive does, compressed or not. The first header is enough: what an entry begins with
// may be longer than what is looked at.
func isArchive(head []byte) bool {
	if archiveutil.IsArchive(head) {
		return true
	}
	if len(head) < tarBlock || head[0] == 0 { // an entry has a name
		return false
	}
	_, err := tar.NewReader(bytes.NewReader(head)).Next()
	return err == nil || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)
}

func (b *builder) noDockerfile(name string) error {
	if name == "" {
		name = defaultDockerfile
	}
	return failed("Cannot locate specified Dockerfile: %s", name)
}

// openTree reads the Dockerfile out of a context. ignore applies the context's .dockerignore, as clients do to what they send.
func (b *builder) openTree(ctx context.Context, st llb.State, name string, ignore bool) error {
	ref, _, err := b.solve(ctx, st, nil)
	if err != nil {
		return err
	}
	if name == "" {
		name = defaultDockerfile
	}
	text, err := ref.ReadFile(ctx, gwclient.ReadRequest{Filename: name})
	if errors.Is(err, fs.ErrNotExist) && name == defaultDockerfile {
		name = strings.ToLower(defaultDockerfile)
		text, err = ref.ReadFile(ctx, gwclient.ReadRequest{Filename: name})
	}
	if errors.Is(err, fs.ErrNotExist) {
		return b.noDockerfile(name)
	}
	if err != nil {
		return err
	}
	b.source.dockerfile, b.source.dockerfileName = text, name
	patterns, err := ignored(ctx, ref)
	if err != nil {
		return err
	}
	if st, err = withoutIgnored(st, patterns, name, ignore); err != nil {
		return err
	}
	ref, _, err = b.solve(ctx, st, nil)
	b.source.files = &tree{state: st, fs: ref}
	return err
}

// ignored reads the patterns of the context's .dockerignore.
func ignored(ctx context.Context, ref frontend.Reference) ([]string, error) {
	text, err := ref.ReadFile(ctx, gwclient.ReadRequest{Filename: ignoreFile})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	patterns, err := ignorefile.ReadAll(bytes.NewReader(text))
	if err != nil {
		return nil, failed("error reading %s: %w", ignoreFile, err)
	}
	return patterns, nil
}

// withoutIgnored takes what is ignored out of a context. Clients that pack one send its Dockerfile and .dockerignore also where they
// are ignored, for the builder to read; both are taken out here.
func withoutIgnored(st llb.State, patterns []string, dockerfile string, all bool) (llb.State, error) {
	if len(patterns) == 0 {
		return st, nil
	}
	m, err := patternmatcher.New(patterns)
	if err != nil {
		return st, failed("error reading %s: %w", ignoreFile, err)
	}
	if all {
		return llb.Scratch().File(llb.Copy(st, "/", "/", &llb.CopyInfo{CopyDirContentsOnly: true, ExcludePatterns: patterns}),
			dockerui.WithInternalName("apply "+ignoreFile)), nil
	}
	var rm *llb.FileAction
	for _, name := range []string{ignoreFile, dockerfile} {
		// The same test, of the path as a whole, is what docker makes.
		out, err := m.MatchesOrParentMatches(path.Clean(name))
		if err != nil {
			return st, failed("error reading %s: %w", ignoreFile, err)
		}
		switch {
		case !out:
		case rm == nil:
			rm = llb.Rm("/"+name, llb.WithAllowNotFound(true))
		default:
			rm = rm.Rm("/"+name, llb.WithAllowNotFound(true))
		}
	}
	if rm == nil {
		return st, nil
	}
	return st.File(rm, dockerui.WithInternalName("apply "+ignoreFile)), nil
}
