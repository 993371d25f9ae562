package fstree

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"

	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// Digester is a [Tree] that knows the digests of its files, or remembers those it had to compute. ok is false if it does
// neither, and the caller has to read the file.
type Digester interface {
	FileDigest(ctx context.Context, path string) (d digest.Digest, ok bool, err error)
}

// DigestOptions says what of a tree a digest covers.
type DigestOptions struct {
	// Include and Exclude are patterns as in a .dockerignore file, relative to the selected path. With Include only what
	// matches counts, and the directories on the way there; what Exclude matches does not, Include or not.
	Include, Exclude []string
	// Follow follows a symlink at the end of the path.
	Follow bool
	// Wildcard says that the path is a pattern, as for [Match].
	Wildcard bool
}

// Selector is one thing that a digest covers.
type Selector struct {
	Path string
	DigestOptions
}

// Digest is the content digest of what is at path: type, mode, owner, size, extended attributes, symlink target, device
// number and content of every file, under its name relative to path, so that moving the whole changes nothing. Times do not
// count, nor does it whether files are hard links of each other. Nothing at path is fs.ErrNotExist, but with a wildcard it is
// a digest of nothing. With a wildcard the names of what matched count, too.
func Digest(ctx context.Context, t Tree, path string, o DigestOptions) (digest.Digest, error) {
	return DigestAll(ctx, t, Selector{path, o})
}

// DigestAll is the content digest of several selections, in their order.
func DigestAll(ctx context.Context, t Tree, selectors ...Selector) (digest.Digest, error) {
	var recs []record
	for _, s := range selectors {
		rs, err := s.records(ctx, t)
		if err != nil {
			return "", fmt.Errorf("digest %q: %w", s.Path, err)
		}
		recs = append(append(recs, record{}), rs...) // an empty record begins each selection
	}
	if err := readContents(ctx, t, recs); err != nil {
		return "", err
	}
	h := &fieldHash{Hash: sha256.New()}
	h.str("slipway tree 1")
	for i := range recs {
		recs[i].write(h)
	}
	return digest.NewDigest(digest.SHA256, h), nil
}

// record is what a digest takes of one entry.
type record struct {
	Entry
	name    string // as it counts
	content digest.Digest
}

func (s *Selector) records(ctx context.Context, t Tree) ([]record, error) {
	if s.Wildcard {
		paths, err := Match(ctx, t, s.Path, s.Follow)
		if err != nil {
			return nil, err
		}
		var recs []record
		for _, p := range paths {
			rs, err := s.below(ctx, t, p, base(p))
			if err != nil {
				return nil, err
			}
			recs = append(recs, rs...)
		}
		return recs, nil
	}
	p, err := Resolve(ctx, t, s.Path, s.Follow)
	if err != nil {
		return nil, err
	}
	return s.below(ctx, t, p, "")
}

// below returns the records of what is at root and inside, which counts as name.
func (s *Selector) below(ctx context.Context, t Tree, root, name string) ([]record, error) {
	var recs []record
	err := Select(ctx, t, root, s.DigestOptions, func(e Entry) error {
		rel := e.Path[len(root):] // with a slash before, unless root is the root: then there is no other
		if root == "" && rel != "" {
			rel = "/" + rel
		}
		recs = append(recs, record{Entry: e, name: name + rel})
		return nil
	})
	return recs, err
}

// write adds r to h. Each field is led by its length or has a fixed one, so no two records look alike.
func (r *record) write(h *fieldHash) {
	if r.Mode == 0 && r.name == "" {
		h.str("selection")
		return
	}
	h.str(r.name)
	h.num(uint64(r.Mode), uint64(r.UID), uint64(r.GID))
	switch r.Mode & ModeType {
	case ModeRegular:
		h.num(uint64(r.Size))
		h.str(string(r.content))
	case ModeSymlink:
		h.str(r.Linkname)
	case ModeBlock, ModeChar:
		h.num(uint64(r.Major), uint64(r.Minor))
	}
	h.num(uint64(len(r.Xattrs)))
	for _, k := range slices.Sorted(maps.Keys(r.Xattrs)) {
		h.str(k)
		h.str(r.Xattrs[k])
	}
}

type fieldHash struct {
	hash.Hash
	buf []byte
}

func (h *fieldHash) str(s string) {
	h.num(uint64(len(s)))
	h.buf = append(h.buf[:0], s...)
	h.Write(h.buf)
}

func (h *fieldHash) num(vs ...uint64) {
	h.buf = h.buf[:0]
	for _, v := range vs {
		h.buf = binary.BigEndian.AppendUint64(h.buf, v)
	}
	h.Write(h.buf)
}

const (
	digestWorkers = 8
	digestBatch   = 32 // files a worker takes at a time
)

// readContents fills in the digests of all files among recs.
func readContents(ctx context.Context, t Tree, recs []record) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(digestWorkers)
	for batch := range slices.Chunk(recs, digestBatch) {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			for i := range batch {
				r := &batch[i]
				if !r.IsRegular() {
					continue
				}
				d, err := fileDigest(gctx, t, r.Path)
				if err != nil {
					return fmt.Errorf("digest: %w", err)
				}
				r.content = d
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

func fileDigest(ctx context.Context, t Tree, path string) (digest.Digest, error) {
	if d, ok := t.(Digester); ok {
		if d, ok, err := d.FileDigest(ctx, path); ok || err != nil {
			return d, err
		}
	}
	c, err := t.Open(ctx, path)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }() // only read from
	h := sha256.New()
	n, err := io.Copy(h, &ctxReader{ctx, io.NewSectionReader(c, 0, c.Size())})
	if err == nil && n != c.Size() {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return "", pathError("digest", path, err)
	}
	return digest.NewDigest(digest.SHA256, h), nil
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *ctxReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
