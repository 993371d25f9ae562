package exporter

import (
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/exporter/attestation"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// attest puts the statements on a platform's result beside its files. They speak of every file by its digest.
func (t *namedTree) attest(ctx context.Context, store *layers.Store, in Input, platform Platform, o TreeOptions, p progress.Writer) error {
	list := attestation.Inline(platform.Attestations, false)
	if len(list) == 0 {
		return nil
	}
	r := attestation.Reader{Layers: store, Fetcher: in.Fetcher, Progress: p}
	list, err := r.Unbundle(ctx, list)
	if err != nil {
		return err
	}
	files, err := subjects(ctx, t.tree)
	if err != nil {
		return err
	}
	statements, err := r.Statements(ctx, list, files, nil)
	if err != nil {
		return err
	}
	suffix := ""
	if many := in.MultiPlatform || len(in.Platforms) > 1; many && !o.splits(in) {
		suffix = "." + t.name
	}
	over := fstree.NewDelta(t.tree)
	seen := map[string]bool{}
	for _, s := range statements {
		name := o.AttestationPrefix + path.Base(s.Path)
		ext := path.Ext(name)
		name = strings.TrimSuffix(name, ext) + suffix + ext
		if seen[name] {
			return fmt.Errorf("duplicate attestation path name %s", name)
		}
		seen[name] = true
		b, err := s.Indented()
		if err != nil {
			return fmt.Errorf("write attestation %s: %w", name, err)
		}
		e := fstree.Entry{Path: name, Mode: fstree.ModeRegular | 0o600, Size: int64(len(b)), ModTime: t.attested}
		if err := over.Put(ctx, e, fstree.Bytes(b)); err != nil {
			return fmt.Errorf("write attestation %s: %w", name, err)
		}
	}
	t.tree = over
	return nil
}

// subjects names all regular files of a tree.
func subjects(ctx context.Context, t fstree.Tree) ([]attestation.Subject, error) {
	var list []attestation.Subject
	err := fstree.Walk(ctx, t, "", func(e fstree.Entry) error {
		if !e.IsRegular() {
			return nil
		}
		c, err := t.Open(ctx, e.Path)
		if err != nil {
			return err
		}
		d, err := digest.FromReader(contextReader{ctx, io.NewSectionReader(c, 0, c.Size())})
		if closeErr := c.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return fmt.Errorf("digest %s: %w", e.Path, err)
		}
		list = append(list, attestation.Subject{Name: e.Path, Digest: map[string]string{d.Algorithm().String(): d.Encoded()}})
		return nil
	})
	return slices.Clip(list), err
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// attestedAt is the time of files of statements: now, unless there is an epoch.
func attestedAt(epoch *time.Time) time.Time {
	if epoch != nil {
		return *epoch
	}
	return time.Now()
}
