package compression

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/containerd/stargz-snapshotter/estargz"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Annotations of a layer in eStargz, by which readers find single files in it.
const (
	annotationTOC  = estargz.TOCJSONDigestAnnotation
	annotationSize = estargz.StoreUncompressedSizeAnnotation
)

// LabelDiffID is the annotation of what [Compress] returns that says which diffID the layer has now, where that is not the one of the
// tar: eStargz adds a table of contents behind it. It is not for manifests.
const LabelDiffID = labelUncompressed

// stargz is an eStargz writer that is written to like any compressor. The tar in it stays as it was, byte for byte.
type stargz struct {
	in   *io.PipeWriter
	done chan error
	out  *estargz.Writer
	toc  digest.Digest // once it is closed without error
}

func newStargz(w io.Writer, level int) *stargz {
	pr, pw := io.Pipe()
	s := &stargz{in: pw, done: make(chan error, 1), out: estargz.NewWriterLevel(w, level)}
	go func() {
		err := s.out.AppendTarLossLess(pr)
		_ = pr.CloseWithError(errors.Join(err, io.ErrClosedPipe)) // who still writes learns why not
		s.done <- err
	}()
	return s
}

func (s *stargz) Write(p []byte) (int, error) { return s.in.Write(p) }

// Close waits for the goroutine and writes the table of contents. It is called once.
func (s *stargz) Close() error {
	_ = s.in.Close() // it never fails
	if err := <-s.done; err != nil {
		return err
	}
	toc, err := s.out.Close()
	s.toc = toc
	return err
}

// commitStargz ends the upload of a blob. It is found again once it was looked at.
func (m maker) commitStargz(ctx context.Context, ref string, w content.Writer, d ocispecs.Descriptor, toc digest.Digest) (ocispecs.Descriptor, error) {
	err := w.Commit(ctx, d.Size, d.Digest)
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return d, errors.Join(err, m.giveUp(ctx, ref, w))
	}
	labels, inspectErr := m.inspect(ctx, d, toc)
	d.Annotations = m.annotations(labels)
	if err != nil {
		return d, errors.Join(inspectErr, m.giveUp(ctx, ref, w))
	}
	return d, errors.Join(inspectErr, w.Close())
}

// inspect reads a blob back, and labels it with what manifests and configs have to say of it.
func (m maker) inspect(ctx context.Context, d ocispecs.Descriptor, toc digest.Digest) (_ map[string]string, err error) {
	ra, err := m.store.ReaderAt(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("read what was made: %w", err)
	}
	defer func() { err = errors.Join(err, ra.Close()) }()
	z, err := gzip.NewReader(content.NewReader(ra))
	if err != nil {
		return nil, fmt.Errorf("read what was made: %w", err)
	}
	sum := digest.Canonical.Digester()
	size, err := io.Copy(sum.Hash(), z)
	if err != nil {
		return nil, fmt.Errorf("read what was made: %w", err)
	}
	labels := map[string]string{
		labelUncompressed: sum.Digest().String(), annotationTOC: toc.String(), annotationSize: strconv.FormatInt(size, 10),
		labelMadeFrom: m.spec.key(m.diffID),
	}
	fields := []string{"labels." + labelUncompressed, "labels." + annotationTOC, "labels." + annotationSize, "labels." + labelMadeFrom}
	if _, err := m.store.Update(ctx, content.Info{Digest: d.Digest, Labels: labels}, fields...); err != nil {
		return nil, fmt.Errorf("label %s: %w", d.Digest, err)
	}
	return labels, nil
}

// annotations are what is said of a blob with these labels.
func (m maker) annotations(labels map[string]string) map[string]string {
	if m.spec.Type != EStargz {
		return nil
	}
	return map[string]string{annotationTOC: labels[annotationTOC], annotationSize: labels[annotationSize], LabelDiffID: labels[labelUncompressed]}
}
