// Package tar is the output that sends the files of a build as one tar stream.
package tar

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"github.com/slipwaybuild/slipway/solver/progress"
	"golang.org/x/sys/unix"
)

// Type is the output's type in requests.
const Type = "tar"

// New returns the factory.
func New(store *layers.Store) exporter.Factory {
	return func(id int, a map[string]string) (exporter.Exporter, error) {
		o, err := exporter.ParseTreeOptions(a)
		if err != nil {
			return nil, err
		}
		return &tarball{store: store, id: id, options: o}, nil
	}
}

type tarball struct {
	store   *layers.Store
	id      int
	options exporter.TreeOptions
}

func (*tarball) Name() string { return "exporting to client tarball" }

// Export streams the merged tree, owners and all; nothing is mounted and nothing spooled.
func (t *tarball) Export(ctx context.Context, in exporter.Input, p progress.Writer) (map[string]string, error) {
	tree, err := exporter.Trees(ctx, t.store, in, t.options, p)
	if err != nil {
		return nil, err
	}
	sent := exporter.Meter(p, progress.Status{ID: "sending tarball"})
	defer sent.Done()
	return nil, exporter.ToClient(ctx, in.Sessions, func(ctx context.Context, c session.Caller) error {
		return exporter.Stream(ctx, in, c, t.id, nil, func(w io.Writer) error {
			return Write(ctx, io.MultiWriter(w, sent), tree)
		})
	})
}

// Write writes a tree as a tar with PAX headers. Equal trees give equal bytes. Sockets are left out, as tar has none. After an
// error the tar has no end.
func Write(ctx context.Context, w io.Writer, tree fstree.Tree) error {
	tw := tar.NewWriter(w)
	written := map[string]bool{}
	err := fstree.Walk(ctx, tree, "", func(e fstree.Entry) error {
		if e.Path == "" {
			return nil
		}
		return writeEntry(ctx, tw, tree, e, written)
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

// writeEntry writes one entry. written remembers what further names can link to.
func writeEntry(ctx context.Context, tw *tar.Writer, tree fstree.Tree, e fstree.Entry, written map[string]bool) error {
	h, ok := header(e)
	if !ok {
		return nil // a socket: tar has none
	}
	if e.Hardlink != "" && written[e.Hardlink] {
		h.Typeflag, h.Linkname, h.Size, h.Devmajor, h.Devminor = tar.TypeLink, e.Hardlink, 0, 0, 0
	}
	if err := tw.WriteHeader(h); err != nil {
		return fmt.Errorf("write %s: %w", e.Path, err)
	}
	written[e.Path] = h.Typeflag != tar.TypeDir && h.Typeflag != tar.TypeLink
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	c, err := tree.Open(ctx, e.Path)
	if err != nil {
		return fmt.Errorf("read %s: %w", e.Path, err)
	}
	_, err = io.Copy(tw, io.NewSectionReader(c, 0, c.Size()))
	if err = errors.Join(err, c.Close()); err != nil {
		return fmt.Errorf("write %s: %w", e.Path, err)
	}
	return nil
}

// header is the entry's; false for what a tar has no word for.
func header(e fstree.Entry) (*tar.Header, bool) {
	h := &tar.Header{
		Name: e.Path, Mode: int64(e.Mode &^ unix.S_IFMT), Uid: int(e.UID), Gid: int(e.GID),
		ModTime: e.ModTime, Format: tar.FormatPAX, PAXRecords: map[string]string{},
	}
	for name, value := range e.Xattrs {
		h.PAXRecords["SCHILY.xattr."+name] = value
	}
	switch e.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, e.Size
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, e.Path+"/"
	case unix.S_IFLNK:
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.Linkname
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, int64(e.Major), int64(e.Minor)
		if e.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	default:
		return nil, false
	}
	return h, true
}
