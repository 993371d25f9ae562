package filesync

import (
	"context"
	"errors"
	"fmt"
	"io"
	gofs "io/fs"
	"log/slog"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/moby/buildkit/session/filesync"
	"github.com/slipwaybuild/slipway/session"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Dir is one directory that a client offers. Exactly one of Path and FS is set.
type Dir struct {
	// Path is a directory on the client's host.
	Path string
	// FS is used instead of Path. It gives no change hints.
	FS fsutil.FS
	// Map changes or drops entries before they are sent. May be nil; see [ResetOwner].
	Map func(path string, st *types.Stat) fsutil.MapResult
}

// ResetOwner is a Dir.Map that makes every entry root's, as docker does for a build context.
func ResetOwner(_ string, st *types.Stat) fsutil.MapResult {
	st.Uid, st.Gid = 0, 0
	return fsutil.MapResultKeep
}

// ProviderOptions goes with [NewProvider].
type ProviderOptions struct {
	// NoHints never tells the daemon how to recognise an unchanged file.
	NoHints bool
	// Logger takes debug messages; nil is silence.
	Logger *slog.Logger
}

// NewProvider returns the attachable that serves dirs, by name. The names usual in builds are "context" and "dockerfile". A
// Path need not exist before it is asked for.
func NewProvider(dirs map[string]Dir, o ProviderOptions) session.Attachable {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &provider{dirs: dirs, o: o}
}

type provider struct {
	dirs map[string]Dir
	o    ProviderOptions
}

// Register implements [session.Attachable].
func (p *provider) Register(s *grpc.Server) { filesync.RegisterFileSyncServer(s, p) }

// TarStream is in the service's definition and was never used by any daemon.
func (p *provider) TarStream(filesync.FileSync_TarStreamServer) error {
	return status.Error(codes.Unimplemented, "tarstream is not supported")
}

// DiffCopy sends one directory.
func (p *provider) DiffCopy(stream filesync.FileSync_DiffCopyServer) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	names, err := decode(md, keyDirName)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	name := ""
	if len(names) > 0 {
		name = names[0]
	}
	dir, ok := p.dirs[name]
	if !ok {
		return status.Errorf(codes.NotFound, "no access allowed to dir %q", name)
	}
	src, err := p.open(dir, md)
	if err != nil {
		return fmt.Errorf("dir %q: %w", name, err)
	}
	s := newSender(src, stream)
	if n, err := strconv.Atoi(first(md, keyInline)); err == nil && n > 0 {
		s.inline = min(int64(n), dataSize)
	}
	s.exact = s.inline > 0 || first(md, keyHints) != ""
	start := time.Now()
	err = s.run(stream.Context())
	p.o.Logger.Debug("directory sent", "dir", name, "duration", time.Since(start), "error", err)
	return err
}

// open makes the tree that a request selects.
func (p *provider) open(dir Dir, md metadata.MD) (Tree, error) {
	opt := &fsutil.FilterOpt{Map: dir.Map}
	for key, to := range map[string]*[]string{
		keyInclude: &opt.IncludePatterns, keyExclude: &opt.ExcludePatterns, keyFollow: &opt.FollowPaths,
	} {
		var err error
		if *to, err = decode(md, key); err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
	}
	base := dir.FS
	if base == nil {
		fs, err := newHostFS(dir.Path)
		if err != nil {
			return nil, err
		}
		fs.hints = first(md, keyHints) != "" && !p.o.NoHints
		base = fs
	}
	filtered, err := fsutil.NewFilterFS(base, opt)
	if err != nil {
		return nil, err
	}
	return fsTree{fsutil.WithHardlinkReset(filtered), base}, nil
}

// fsTree is an fsutil.FS as a tree.
type fsTree struct {
	fs fsutil.FS
	// raw opens what fs showed without matching its path against the patterns again.
	raw fsutil.FS
}

func (t fsTree) Walk(ctx context.Context, f func(*types.Stat) error) error {
	return t.fs.Walk(ctx, string(filepath.Separator), func(path string, entry gofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := entry.Info()
		if err != nil {
			return err
		}
		st, ok := fi.Sys().(*types.Stat)
		if !ok {
			return fmt.Errorf("%s: file system gives no fsutil stat but %T", path, fi.Sys())
		}
		st.Path, st.Linkname = filepath.ToSlash(st.Path), filepath.ToSlash(st.Linkname)
		return f(st)
	})
}

func (t fsTree) Open(_ context.Context, path string) (io.ReadCloser, error) {
	return t.raw.Open(filepath.FromSlash(path))
}

func isGone(err error) bool {
	return err != nil && (errors.Is(err, gofs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR))
}
