package request

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/moby/buildkit/util/staticfs"
	"github.com/slipwaybuild/slipway/session/filesync"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// Errors of contradicting sources, in docker's words.
var (
	errStdinConflict      = errors.New("invalid argument: can't use stdin for both build context and dockerfile")
	errDockerfileConflict = errors.New("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles")
)

// maxDockerfile is the largest Dockerfile taken from standard input, in bytes.
const maxDockerfile = 16 << 20

// sources are what a build reads, and how the frontend finds it.
type sources struct {
	dirs   map[string]filesync.Dir
	attrs  map[string]string
	upload io.Reader                // a tarball on standard input
	key    string                   // of the main directory
	stores map[string]content.Store // image layouts
}

const (
	contextDir    = "context"
	dockerfileDir = "dockerfile"
)

// findContext resolves the context and the Dockerfile, in docker's order: standard input, a local path, a URL.
func findContext(o Options, stdin io.Reader) (*sources, error) {
	s := &sources{dirs: map[string]filesync.Dir{}, attrs: map[string]string{}}
	if o.Context == "-" && o.File == "-" {
		return nil, errStdinConflict
	}
	switch {
	case o.Context == "-":
		return s, s.fromStdin(o, stdin)
	case isDir(o.Context):
		s.dirs[contextDir] = filesync.Dir{Path: o.Context, Map: filesync.ResetOwner}
		s.key = sharedKey(o.Context)
		return s, s.localDockerfile(o, stdin)
	case exists(o.Context):
		return nil, fmt.Errorf("context must be a directory: %s", o.Context)
	case isURL(o.Context):
		s.attrs["context"] = o.Context
		if o.File == "-" {
			return s, s.stdinDockerfile(stdin)
		}
		if o.File != "" {
			s.attrs["filename"] = o.File
		}
		return s, nil
	}
	return nil, fmt.Errorf("unable to prepare context: path %q not found", o.Context)
}

func (s *sources) fromStdin(o Options, stdin io.Reader) error {
	buf := bufio.NewReaderSize(stdin, 4096)
	head, err := buf.Peek(1024)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read context from standard input: %w", err)
	}
	if len(head) == 0 {
		return errors.New("build context on standard input is empty")
	}
	if isArchive(head) {
		s.upload = buf
		if o.File != "" {
			s.attrs["filename"] = o.File
		}
		return nil
	}
	if o.File != "" {
		return errDockerfileConflict
	}
	empty := staticfs.NewFS()
	s.dirs[contextDir] = filesync.Dir{FS: empty}
	return s.stdinDockerfile(buf)
}

// localDockerfile offers the directory of the Dockerfile. Of it the daemon asks for the Dockerfile and its ignore file only.
func (s *sources) localDockerfile(o Options, stdin io.Reader) error {
	if o.File == "-" {
		return s.stdinDockerfile(stdin)
	}
	file := o.File
	if file == "" {
		file = filepath.Join(o.Context, "Dockerfile")
		if !exists(file) && exists(filepath.Join(o.Context, "dockerfile")) {
			file = filepath.Join(o.Context, "dockerfile")
		}
	}
	file, err := withinReach(file)
	if err != nil {
		return fmt.Errorf("unable to prepare context: unable to evaluate symlinks in Dockerfile path: %w", err)
	}
	s.dirs[dockerfileDir] = filesync.Dir{Path: filepath.Dir(file), Map: filesync.ResetOwner}
	s.attrs["filename"] = filepath.Base(file)
	return nil
}

// withinReach follows a Dockerfile that is a link out of its directory: the daemon is offered that directory and nothing above it. A link
// that stays inside is left alone, so that the ignore file beside it is still found by the name the user gave.
func withinReach(file string) (string, error) {
	real, err := filepath.EvalSymlinks(file)
	if err != nil {
		return "", err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(file))
	if err != nil {
		return "", err
	}
	if rel, err := filepath.Rel(dir, real); err != nil || !filepath.IsLocal(rel) {
		return real, nil
	}
	return file, nil
}

func (s *sources) stdinDockerfile(stdin io.Reader) error {
	b, err := io.ReadAll(io.LimitReader(stdin, maxDockerfile+1))
	if err != nil {
		return fmt.Errorf("read Dockerfile from standard input: %w", err)
	}
	if len(b) > maxDockerfile {
		return fmt.Errorf("the Dockerfile on standard input is larger than %d bytes", maxDockerfile)
	}
	dir := staticfs.NewFS()
	dir.Add("Dockerfile", &types.Stat{Path: "Dockerfile", Mode: 0o600}, b)
	s.dirs[dockerfileDir] = filesync.Dir{FS: dir}
	s.attrs["filename"] = "Dockerfile"
	if s.attrs["context"] != "" {
		s.attrs["dockerfilekey"] = dockerfileDir
	}
	return nil
}

// addNamed reads one --build-context name=where.
func (s *sources) addNamed(arg string) error {
	name, where, ok := strings.Cut(arg, "=")
	if !ok || name == "" || where == "" {
		return fmt.Errorf("invalid build context %q: expected name=path, name=URL or name=docker-image://reference", arg)
	}
	s.attrs["frontend.caps"] = "moby.buildkit.frontend.contexts+forward"
	if strings.HasPrefix(where, layoutScheme) {
		found, err := s.addLayout(where)
		if err != nil {
			return fmt.Errorf("build context %s: %w", name, err)
		}
		s.attrs["context:"+name] = found
		return nil
	}
	if !isDir(where) {
		if !isURL(where) {
			return fmt.Errorf("build context %s: directory %q not found", name, where)
		}
		s.attrs["context:"+name] = where
		return nil
	}
	local := name
	if local == contextDir || local == dockerfileDir {
		local = "_" + local
	}
	s.dirs[local] = filesync.Dir{Path: where, Map: filesync.ResetOwner}
	s.attrs["context:"+name] = "local:" + local
	return nil
}

// isArchive tells a tar, plain or compressed, from text by its first bytes.
func isArchive(head []byte) bool {
	for _, magic := range [][]byte{
		{0x1f, 0x8b, 0x08},               // gzip
		{'B', 'Z', 'h'},                  // bzip2
		{0xfd, '7', 'z', 'X', 'Z', 0x00}, // xz
		{0x28, 0xb5, 0x2f, 0xfd},         // zstd
	} {
		if bytes.HasPrefix(head, magic) {
			return true
		}
	}
	return len(head) >= 262 && string(head[257:262]) == "ustar" || len(head) >= 512 && oldTar(head[:512])
}

// oldTar recognises a header from before ustar by its checksum: the sum of its bytes with the field itself taken as spaces.
func oldTar(h []byte) bool {
	var want int64
	if _, err := fmt.Sscanf(strings.TrimRight(string(h[148:156]), " \x00"), "%o", &want); err != nil {
		return false
	}
	var sum int64
	for i, b := range h {
		if i >= 148 && i < 156 {
			b = ' '
		}
		sum += int64(b)
	}
	return sum == want
}

func isDir(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist) && err == nil
}

var _ fsutil.FS = (*staticfs.FS)(nil)
