package imageservice

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/source/image/manifest"
)

// What an archive may hold beside blobs and layers: documents, kept in memory while it is read.
const (
	maxDocuments   = 64 << 20
	maxArchived    = 100_000 // entries
	maxLinksInARow = 10
)

// archive is what was read of one: small documents in memory, blobs in the content store, layers in the layer store.
type archive struct {
	s     *Service
	p     Progress
	files map[string]*archived
	bytes int64 // of documents
}

// archived is one file of an archive, or a link to another.
type archived struct {
	link     string
	document []byte
	layer    *layers.Ref // held
	size     int64       // of the uncompressed layer
}

func newArchive(s *Service, p Progress) *archive {
	return &archive{s: s, p: p, files: map[string]*archived{}}
}

// read takes all entries.
func (a *archive) read(ctx context.Context, r io.Reader) error {
	tr := tar.NewReader(r)
	for n := 0; ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return invalid("the archive cannot be read: %w", err)
		}
		if n == maxArchived {
			return invalid("the archive has more than %d entries", maxArchived)
		}
		name := clean(h.Name)
		switch h.Typeflag {
		case tar.TypeSymlink:
			a.put(name, &archived{link: clean(path.Join(path.Dir(name), h.Linkname))})
		case tar.TypeLink:
			a.put(name, &archived{link: clean(h.Linkname)})
		case tar.TypeReg:
			if err := a.file(ctx, name, h.Size, tr); err != nil {
				return fmt.Errorf("load %q of the archive: %w", name, err)
			}
		}
	}
}

// clean makes a name in an archive one below its top.
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// put enters a file. Where a name comes twice, the later file counts, as it does when an archive is unpacked.
func (a *archive) put(name string, f *archived) {
	if old := a.files[name]; old != nil && old.layer != nil {
		_ = old.layer.Release() // released once, here
	}
	a.files[name] = f
}

// file takes one file by what it is.
func (a *archive) file(ctx context.Context, name string, size int64, r io.Reader) error {
	in := bufio.NewReaderSize(counted(ctx, r, nil), 64<<10)
	d, isBlob := blobDigest(name)
	switch {
	case isBlob && !(isTar(in) && d.Algorithm() == digest.SHA256):
		return a.blob(ctx, d, size, in)
	case isBlob:
		return a.layer(ctx, name, size, d, in)
	case isDocument(name):
		return a.document(name, size, in)
	}
	return a.layer(ctx, name, size, "", in)
}

// blobDigest reads the name of a blob in an OCI layout.
func blobDigest(name string) (digest.Digest, bool) {
	parts := strings.Split(name, "/")
	if len(parts) != 3 || parts[0] != "blobs" {
		return "", false
	}
	d := digest.NewDigestFromEncoded(digest.Algorithm(parts[1]), parts[2])
	return d, d.Validate() == nil
}

// isDocument tells the files of archives that are no layers by their names.
func isDocument(name string) bool {
	base := path.Base(name)
	return strings.HasSuffix(base, ".json") || base == "json" || base == "VERSION" || base == "repositories" || base == ocispecs.ImageLayoutFile
}

func (a *archive) document(name string, size int64, r io.Reader) error {
	if a.bytes += size; size > manifest.MaxSize || a.bytes > maxDocuments {
		return invalid("it has %d bytes, more than documents may have", size)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return invalid("%w", err)
	}
	a.put(name, &archived{document: b})
	return nil
}

// blob puts a blob into the content store, verified.
func (a *archive) blob(ctx context.Context, d digest.Digest, size int64, r io.Reader) error {
	told := func(n int64) { a.p.layer(d, "Loading layer", n, size) }
	if size <= manifest.MaxSize {
		told = nil
	}
	err := content.WriteBlob(ctx, a.s.images.Content(), "load-"+d.String(), counted(ctx, r, told), ocispecs.Descriptor{Digest: d, Size: size})
	if err != nil {
		return errors.Join(invalid("%w", err), ignoreMissing(a.s.images.Content().Abort(ctx, "load-"+d.String())))
	}
	return nil
}

// layer puts a layer into the layer store, where an uncompressed one is content by its digest as well. want may be empty.
func (a *archive) layer(ctx context.Context, name string, size int64, want digest.Digest, in *bufio.Reader) error {
	z, err := decompressed(in)
	if errors.Is(err, io.EOF) {
		return nil // an empty file is nothing
	}
	if err != nil {
		return invalid("%w", err)
	}
	defer func() { _ = z.Close() }() // it was only read
	id := want
	if id == "" {
		id = digest.FromString(name) // its own is known when it was read
	}
	plain := bufio.NewReaderSize(z, 64<<10)
	if !isTar(plain) {
		a.put(name, &archived{}) // whatever it is, an image that needs it will say so
		return nil
	}
	f := &archived{}
	ref, err := a.s.layers.Import(ctx, counted(ctx, plain, func(n int64) {
		f.size = n
		a.p.layer(id, "Loading layer", n, max(n, size))
	}), layers.ImportOptions{Want: want, Labels: layers.Labels{Description: "loaded from an archive"}})
	if err != nil {
		return importFailure(ctx, err)
	}
	f.layer = ref
	a.put(name, f)
	return nil
}

// at follows links to a file; nil if there is none.
func (a *archive) at(name string) *archived {
	name = clean(name)
	for range maxLinksInARow {
		f := a.files[name]
		if f == nil || f.link == "" {
			return f
		}
		name = f.link
	}
	return nil
}

// importFailure blames the archive for what is not the daemon's fault.
func importFailure(ctx context.Context, err error) error {
	var full *layers.NoSpaceError
	if ctx.Err() != nil || errors.As(err, &full) {
		return err
	}
	return invalid("%w", err)
}
