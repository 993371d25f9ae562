package imageservice

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// Loaded is an image that came into the store. Name is as people write it, and empty for an image without one.
type Loaded struct {
	Name string
	ID   digest.Digest
}

// Load reads an archive of docker save or an OCI layout, compressed or not, in one pass, and puts its images into the store: all or,
// with an error, none of them. Blobs are checked against their digests.
func (s *Service) Load(ctx context.Context, r io.Reader, p Progress) (list []Loaded, err error) {
	err = s.leased(ctx, func(leased context.Context) (err error) {
		a := newArchive(s, p)
		defer func() { err = errors.Join(err, a.release()) }()
		if err := a.readAll(leased, r); err != nil {
			return err
		}
		found, err := a.images(leased)
		if err != nil {
			return err
		}
		list, err = s.loaded(leased, found)
		return err
	})
	return list, err
}

// readAll reads the archive to its end, and what may follow it.
func (a *archive) readAll(ctx context.Context, r io.Reader) error {
	z, err := decompressed(bufio.NewReaderSize(r, 64<<10))
	if err != nil {
		return invalid("the archive cannot be read: %w", err)
	}
	defer func() { _ = z.Close() }() // it was only read
	if err := a.read(ctx, z); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, counted(ctx, z, nil)); err != nil {
		return invalid("the archive cannot be read to its end: %w", err)
	}
	return nil
}

// loadable is an image of an archive.
type loadable struct {
	target ocispecs.Descriptor
	name   reference.Named // nil for none
}

// loaded names the images of an archive, having looked that all of them are whole.
func (s *Service) loaded(ctx context.Context, found []loadable) (list []Loaded, err error) {
	all := make([]*contents, len(found))
	for i, l := range found {
		if all[i], err = s.whole(ctx, l.target); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, l := range found {
		one := Loaded{ID: l.target.Digest}
		full := ""
		if l.name != nil {
			one.Name, full = reference.FamiliarString(l.name), l.name.String()
		}
		if err := s.put(ctx, full, all[i]); err != nil {
			return list, err
		}
		list = append(list, one)
		s.publish(events.ActionLoad, one.ID.String(), one.ID.String())
	}
	return list, nil
}

// whole reads an image and fails unless there is a platform, and all layers of those that there are.
func (s *Service) whole(ctx context.Context, target ocispecs.Descriptor) (*contents, error) {
	c, err := s.read(ctx, target)
	if err != nil {
		return nil, invalid("the archive is not complete: %w", err)
	}
	if len(c.singles) == 0 {
		return nil, invalid("the archive has no manifest for image %s", target.Digest)
	}
	whole := 0
	for _, one := range c.singles {
		var r *layers.Ref
		if r, err = s.stack(ctx, one); err == nil {
			whole++
			err = r.Release()
		}
	}
	if whole == 0 || err != nil && len(c.singles) == 1 {
		return nil, invalid("the archive is not complete: %w", err)
	}
	return c, nil
}

// release gives back the layers that were read.
func (a *archive) release() error {
	var errs []error
	for _, f := range a.files {
		if f.layer != nil {
			errs = append(errs, f.layer.Release())
		}
	}
	return errors.Join(errs...)
}

var errNoImages = fmt.Errorf("the archive has neither %s nor manifest.json: it is no archive of images", ocispecs.ImageIndexFile)
