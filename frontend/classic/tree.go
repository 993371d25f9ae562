package classic

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	fstypes "github.com/tonistiigi/fsutil/types"
)

// readSize is how much of a file is read at once.
const readSize = 4 << 20

// maxLinks bounds the symlinks that one path leads through.
const maxLinks = 40

func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// isDir tells whether there is a directory, or a symlink to one.
func (t *tree) isDir(ctx context.Context, p string) (bool, error) {
	st, _, err := t.stat(ctx, p)
	if missing(err) {
		return false, nil
	}
	return err == nil && fs.FileMode(st.Mode).IsDir(), err
}

// stat describes what is at a path, following symlinks within the tree, and says where that is.
func (t *tree) stat(ctx context.Context, p string) (*fstypes.Stat, string, error) {
	p = path.Clean("/" + p)
	if t.fs == nil {
		if p == "/" {
			return &fstypes.Stat{Mode: uint32(fs.ModeDir | 0o755)}, p, nil
		}
		return nil, p, &fs.PathError{Op: "stat", Path: p, Err: fs.ErrNotExist}
	}
	for range maxLinks {
		st, err := t.fs.StatFile(ctx, gwclient.StatRequest{Path: p})
		if err != nil {
			return nil, p, err
		}
		if fs.FileMode(st.Mode)&fs.ModeSymlink == 0 {
			return st, p, nil
		}
		if path.IsAbs(st.Linkname) {
			p = path.Clean(st.Linkname)
		} else {
			p = path.Join(path.Dir(p), st.Linkname)
		}
	}
	return nil, p, &fs.PathError{Op: "stat", Path: p, Err: syscall.ELOOP}
}

// walk calls fn for everything below a directory, by names, with paths relative to the tree's root.
func (t *tree) walk(ctx context.Context, dir string, fn func(rel string, st *fstypes.Stat) error) error {
	if t.fs == nil {
		return nil
	}
	list, err := t.fs.ReadDir(ctx, gwclient.ReadDirRequest{Path: "/" + dir})
	if err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b *fstypes.Stat) int { return strings.Compare(a.Path, b.Path) })
	for _, st := range list {
		rel := path.Join(dir, path.Base(st.Path))
		if err := fn(rel, st); err != nil {
			return err
		}
		if fs.FileMode(st.Mode).IsDir() {
			if err := t.walk(ctx, rel, fn); err != nil {
				return err
			}
		}
	}
	return nil
}

// sum is what a file, or a directory with all in it, is known by in histories and in the cache: its contents and all that COPY keeps
// of it, which is everything but times.
func (t *tree) sum(ctx context.Context, p string) (string, error) {
	st, at, err := t.stat(ctx, p)
	if err != nil {
		return "", err
	}
	if !fs.FileMode(st.Mode).IsDir() {
		sum, err := t.fileSum(ctx, at, path.Base(p), st)
		return "file:" + sum, err
	}
	var sums []string
	root := strings.TrimPrefix(at, "/")
	err = t.walk(ctx, root, func(rel string, st *fstypes.Stat) error {
		sum, err := t.fileSum(ctx, "/"+rel, strings.TrimPrefix(rel, root), st)
		sums = append(sums, sum)
		return err
	})
	return joinSums("dir", sums), err
}

func joinSums(kind string, sums []string) string {
	s := sha256.Sum256([]byte(strings.Join(sums, ",")))
	return kind + ":" + hex.EncodeToString(s[:])
}

func (t *tree) fileSum(ctx context.Context, at, name string, st *fstypes.Stat) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%q %o %d %d %q %d %d\n", name, st.Mode, st.Uid, st.Gid, st.Linkname, st.Devmajor, st.Devminor)
	for _, k := range sortedKeys(st.Xattrs) {
		fmt.Fprintf(h, "%q %q\n", k, st.Xattrs[k])
	}
	if fs.FileMode(st.Mode).IsRegular() {
		if err := t.addContent(ctx, h, at, st.Size); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func (t *tree) addContent(ctx context.Context, h hash.Hash, at string, size int64) error {
	for off := int64(0); off < size; off += readSize {
		part, err := t.fs.ReadFile(ctx, gwclient.ReadRequest{Filename: at, Range: &gwclient.FileRange{Offset: int(off), Length: readSize}})
		if err != nil {
			return err
		}
		if len(part) == 0 {
			return &os.PathError{Op: "read", Path: at, Err: fs.ErrInvalid}
		}
		h.Write(part)
	}
	return nil
}

func sortedKeys(m map[string][]byte) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
