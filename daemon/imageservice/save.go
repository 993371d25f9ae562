package imageservice

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	cimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Save writes images as one archive that is an OCI layout and what docker load has always read: for each image, under the names that
// it was asked for by, what there is of it here. open is called when nothing but the client can fail any more.
func (s *Service) Save(ctx context.Context, refs []string, open func() io.Writer) error {
	list, err := s.saved(ctx, refs)
	if err != nil {
		return err
	}
	return s.leased(ctx, func(leased context.Context) (err error) {
		a := &saver{s: s, done: map[digest.Digest]bool{}}
		var all []*contents
		for _, one := range list {
			c, err := s.read(leased, one.target)
			if err != nil {
				return err
			}
			if len(c.singles) == 0 {
				return conflict("image %s has no platform that is here", one.target.Digest)
			}
			all = append(all, c)
		}
		if a.blobs, err = s.blobsOf(ctx, leased, nil, all...); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, a.blobs.close()) }()
		for i, c := range all {
			if err := a.add(leased, c, list[i].names); err != nil {
				return err
			}
		}
		if err := a.write(leased, open()); err != nil {
			return err
		}
		for _, one := range list {
			s.publish(events.ActionSave, one.target.Digest.String(), one.target.Digest.String())
		}
		return nil
	})
}

// chosen is an image with the names that it was asked for by.
type chosen struct {
	target ocispecs.Descriptor
	names  []reference.NamedTagged
}

// add adds a name, once.
func (c *chosen) add(name reference.NamedTagged) {
	if !slices.ContainsFunc(c.names, func(n reference.NamedTagged) bool { return n.String() == name.String() }) {
		c.names = append(c.names, name)
	}
}

// saved finds what is to be saved, each image once. A repository alone is all its tags.
func (s *Service) saved(ctx context.Context, refs []string) (list []*chosen, err error) {
	at := func(d ocispecs.Descriptor) *chosen {
		for _, c := range list {
			if c.target.Digest == d.Digest {
				return c
			}
		}
		list = append(list, &chosen{target: d})
		return list[len(list)-1]
	}
	for _, ref := range refs {
		tags, err := s.tagsOf(ctx, ref)
		if err != nil {
			return nil, err
		}
		for _, t := range tags {
			image, err := s.images.Get(ctx, t.String())
			if err != nil {
				return nil, err
			}
			at(image.Target).add(t)
		}
		if len(tags) > 0 {
			continue
		}
		g, name, err := s.find(ctx, ref)
		if err != nil {
			return nil, err
		}
		c := at(g.target)
		if named, err := reference.ParseNormalizedNamed(name); err == nil {
			if t, ok := named.(reference.NamedTagged); ok {
				c.add(t)
			}
		}
	}
	return list, nil
}

// tagsOf lists the names with tags of a repository; none if ref is something else.
func (s *Service) tagsOf(ctx context.Context, ref string) ([]reference.NamedTagged, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil || !reference.IsNameOnly(named) {
		return nil, nil
	}
	list, err := s.pushed(ctx, named)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	return list, err
}

// saver collects what goes into an archive.
type saver struct {
	s     *Service
	blobs *blobs
	done  map[digest.Digest]bool
	list  []ocispecs.Descriptor // in the order of the archive
	index ocispecs.Index
	// docker is manifest.json.
	docker []dockerImage
}

// dockerImage is one entry of manifest.json.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// add makes sure that all there is of an image can be read.
func (a *saver) add(ctx context.Context, c *contents, names []reference.NamedTagged) error {
	for _, d := range c.indexes {
		a.blob(d)
	}
	for _, one := range c.singles {
		a.blob(one.Manifest)
		a.blob(one.Config)
		for _, l := range one.Layers {
			if err := a.blobs.need(ctx, l.Descriptor); err != nil {
				return fmt.Errorf("save image %s: %w", c.target.Digest, err)
			}
			a.blob(l.Descriptor)
		}
	}
	if err := a.attestations(ctx, c); err != nil {
		return err
	}
	one := a.s.single(c)
	entry := dockerImage{Config: blobPath(one.Config.Digest), Layers: []string{}}
	for _, l := range one.Layers {
		entry.Layers = append(entry.Layers, blobPath(l.Descriptor.Digest))
	}
	if len(names) == 0 {
		a.index.Manifests = append(a.index.Manifests, c.target)
	}
	for _, n := range names {
		d := c.target
		d.Annotations = map[string]string{cimages.AnnotationImageName: n.String(), ocispecs.AnnotationRefName: n.Tag()}
		a.index.Manifests = append(a.index.Manifests, d)
		entry.RepoTags = append(entry.RepoTags, reference.FamiliarString(n))
	}
	a.docker = append(a.docker, entry)
	return nil
}

// attestations adds those that are here whole.
func (a *saver) attestations(ctx context.Context, c *contents) error {
	for _, d := range c.attestations {
		p := packer{s: a.s, out: &parcel{}}
		if err := p.attestation(ctx, d); err != nil {
			return err
		}
		for _, b := range append(slices.Clone(p.out.layers), p.out.documents...) {
			if err := a.blobs.need(ctx, b); err != nil {
				return err
			}
			a.blob(b)
		}
	}
	return nil
}

func (a *saver) blob(d ocispecs.Descriptor) {
	if !a.done[d.Digest] {
		a.done[d.Digest] = true
		a.list = append(a.list, d)
	}
}

func blobPath(d digest.Digest) string { return "blobs/" + d.Algorithm().String() + "/" + d.Encoded() }

func (a *saver) write(ctx context.Context, w io.Writer) error {
	tw := tar.NewWriter(w)
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}); err != nil {
			return err
		}
	}
	for _, d := range a.list {
		if err := a.writeBlob(ctx, tw, d); err != nil {
			return fmt.Errorf("write %s: %w", d.Digest, err)
		}
	}
	a.index.Versioned, a.index.MediaType = specs.Versioned{SchemaVersion: 2}, ocispecs.MediaTypeImageIndex
	for _, f := range []struct {
		name string
		v    any
	}{
		{ocispecs.ImageIndexFile, a.index},
		{"manifest.json", a.docker},
		{ocispecs.ImageLayoutFile, ocispecs.ImageLayout{Version: ocispecs.ImageLayoutVersion}},
	} {
		b, err := json.Marshal(f.v)
		if err != nil {
			return err
		}
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o444, Size: int64(len(b))}); err != nil {
			return err
		}
		if _, err := tw.Write(b); err != nil {
			return err
		}
	}
	return tw.Close()
}

func (a *saver) writeBlob(ctx context.Context, tw *tar.Writer, d ocispecs.Descriptor) error {
	r, err := a.blobs.open(ctx, d)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // it was only read
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: blobPath(d.Digest), Mode: 0o444, Size: d.Size}); err != nil {
		return err
	}
	_, err = io.Copy(tw, r)
	return err
}
