package manifest

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// Rewrite is the input with layers in which nothing is newer than the epoch, if the options ask for that. Layers of the base image
// stay as they are, as they do with BuildKit: they are the same in every build. The caller calls what it gets when the input is of no
// more use.
func (a *Assembler) Rewrite(ctx context.Context, in exporter.Input, o Options, p progress.Writer) (exporter.Input, func() error, error) {
	var owned []*layers.Ref
	release := func() error {
		var errs []error
		for _, r := range owned {
			errs = append(errs, r.Release())
		}
		return errors.Join(errs...)
	}
	if !o.RewriteTimes {
		return in, release, nil
	}
	in.Platforms = slices.Clone(in.Platforms)
	for i := range in.Platforms {
		platform := &in.Platforms[i]
		epoch, err := in.Epoch(o.Epoch, platform.ID)
		if err == nil && epoch == nil {
			p.Warn(progress.Warning{Short: []byte("rewrite-timestamp is specified, but no source-date-epoch was found")})
			continue
		}
		if err == nil {
			platform.Ref, err = a.rewriteStack(ctx, *platform, in.Fetcher, *epoch, p)
		}
		if err != nil {
			return in, nil, errors.Join(fmt.Errorf("rewrite times in the layers of %s: %w", platform.ID, err), release())
		}
		owned = append(owned, platform.Ref)
	}
	return in, release, nil
}

// rewriteStack is a stack of which the layers over the base image's have no times after the epoch.
func (a *Assembler) rewriteStack(ctx context.Context, platform exporter.Platform, f layers.Fetcher, epoch time.Time, p progress.Writer) (*layers.Ref, error) {
	infos := platform.Ref.Layers()
	base, err := baseLayers(platform.BaseConfig)
	if err != nil {
		return nil, err
	}
	n := 0
	for n < len(infos) && n < len(base) && infos[n].DiffID == base[n] {
		n++
	}
	shown := exporter.Meter(p, progress.Status{ID: fmt.Sprintf("rewriting layers with source-date-epoch %d (%s)", epoch.Unix(), epoch)})
	defer shown.Done()
	parts := []*layers.Ref{a.Layers.Slice(platform.Ref, 0, n)}
	for i := n; i < len(infos) && err == nil; i++ {
		var one *layers.Ref
		if one, err = a.rewriteLayer(ctx, platform.Ref, i, f, epoch, p); err == nil {
			parts = append(parts, one)
		}
	}
	var whole *layers.Ref
	if err == nil {
		whole = a.Layers.Stack(parts...)
	}
	for _, part := range parts {
		err = errors.Join(err, part.Release())
	}
	return whole, err
}

// rewrittenAnnotation is how BuildKit marks a layer of which the times were rewritten; the value is the epoch in seconds.
const rewrittenAnnotation = "buildkit/rewritten-timestamp"

// noteRewritten marks the layers over the base image's, if their times were rewritten.
func noteRewritten(blobs []Blob, platform exporter.Platform, o Options, epoch *time.Time) error {
	if !o.RewriteTimes || epoch == nil {
		return nil
	}
	base, err := baseLayers(platform.BaseConfig)
	if err != nil {
		return err
	}
	for i := min(len(base), len(blobs)); i < len(blobs); i++ {
		noted := maps.Clone(blobs[i].Desc.Annotations)
		if noted == nil {
			noted = map[string]string{}
		}
		noted[rewrittenAnnotation] = strconv.FormatInt(epoch.Unix(), 10)
		blobs[i].Desc.Annotations = noted
	}
	return nil
}

func baseLayers(config []byte) ([]digest.Digest, error) {
	if len(config) == 0 {
		return nil, nil
	}
	var img ocispecs.Image
	if err := json.Unmarshal(config, &img); err != nil {
		return nil, fmt.Errorf("parse config of the base image: %w", err)
	}
	return img.RootFS.DiffIDs, nil
}

// rewriteLayer is layer i of a stack, rewritten if it has to be.
func (a *Assembler) rewriteLayer(ctx context.Context, ref *layers.Ref, i int, f layers.Fetcher, epoch time.Time, p progress.Writer) (_ *layers.Ref, err error) {
	one := a.Layers.Slice(ref, i, i+1)
	keep := false
	defer func() {
		if !keep {
			err = errors.Join(err, one.Release())
		}
	}()
	if err := a.Layers.Fetch(ctx, one, f, p); err != nil {
		return nil, err
	}
	if _, err := a.Layers.Solidify(ctx, one); err != nil {
		return nil, err
	}
	r, _, err := a.Layers.Tar(ctx, one, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	late, err := newer(contextReader{ctx, r}, r, epoch)
	if err != nil {
		return nil, fmt.Errorf("read layer: %w", err)
	}
	if !late {
		keep = true
		return one, nil
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	info := one.Layers()[0]
	pr, pw := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		pw.CloseWithError(clampTar(pw, contextReader{ctx, r}, epoch))
	}()
	made, err := a.Layers.Import(ctx, pr, layers.ImportOptions{Labels: info.Labels})
	_ = pr.CloseWithError(context.Canceled) // what is left ends
	<-done
	return made, err
}

// newer tells whether a tar has times after the epoch. Contents are skipped by seeking.
func newer(r io.Reader, seeker io.Seeker, epoch time.Time) (bool, error) {
	tr := tar.NewReader(struct {
		io.Reader
		io.Seeker
	}{r, seeker})
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if h.ModTime.After(epoch) || h.AccessTime.After(epoch) || h.ChangeTime.After(epoch) {
			return true, nil
		}
	}
}

// clampTar copies a tar with no time in it after the epoch.
func clampTar(w io.Writer, r io.Reader, epoch time.Time) error {
	tr, tw := tar.NewReader(r), tar.NewWriter(w)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return tw.Close()
		}
		if err != nil {
			return err
		}
		for _, t := range []*time.Time{&h.ModTime, &h.AccessTime, &h.ChangeTime} {
			if t.After(epoch) {
				*t = epoch
			}
		}
		if h.Typeflag == tar.TypeGNUSparse {
			h.Typeflag, h.Format = tar.TypeReg, tar.FormatUnknown // the writer has no holes
		}
		if tw.WriteHeader(h) != nil {
			// What the tar's own format cannot hold by Go's lights another one can.
			h.Format = tar.FormatUnknown
			if err := tw.WriteHeader(h); err != nil {
				return err
			}
		}
		if _, err := io.Copy(tw, tr); err != nil {
			return err
		}
	}
}
