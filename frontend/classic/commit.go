package classic

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// step is a step of which an image is to be made.
type step struct {
	made      *containerConfig // of the container
	container string           // its id; "" where docker has none
	changes   bool             // of the file system: there is a layer
}

// foundImage is an image that an earlier build made of the same step.
type foundImage struct {
	id     digest.Digest
	config imageConfig
}

// probe looks for the image that an earlier build made of a step after the same image. After a step that was not found none is.
func (s *stage) probe(ctx context.Context, made *containerConfig) (*foundImage, error) {
	if s.missed || s.b.noCache {
		return nil, nil
	}
	children, err := s.b.Images.Children(ctx, s.image)
	if err != nil {
		return nil, fmt.Errorf("look for the step in the cache: %w", err)
	}
	for _, child := range children {
		if s.b.lineage != nil && !s.b.lineage[child.ID] {
			continue
		}
		c, err := parseImage(child.Config)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", child.ID, err)
		}
		if c.ContainerConfig != nil && sameStep(c.ContainerConfig, made) && len(c.History) > 0 {
			return &foundImage{child.ID, c}, nil
		}
	}
	s.missed = true
	return nil, nil
}

// reuse goes on with an image that was found.
func (s *stage) reuse(f foundImage, changes bool) error {
	s.b.Output.Text(" ---> Using cache\n")
	entry := f.config.History[len(f.config.History)-1]
	entry.EmptyLayer = !changes
	s.said = append(s.said, entry)
	s.became(f.id)
	return nil
}

// commit makes the image of a step.
func (s *stage) commit(ctx context.Context, st step) error {
	created := now()
	said := append(s.said[:len(s.said):len(s.said)], ocispecs.History{
		Created: created, Author: s.author, CreatedBy: strings.Join(st.made.Cmd, " "), EmptyLayer: !st.changes,
	})
	img := s.base
	img.Author, img.Created, img.History = s.author, created, said
	img.Config, img.ContainerConfig, img.Container = s.config, st.made, st.container
	raw, err := json.Marshal(img)
	if err != nil {
		return fmt.Errorf("write image config: %w", err)
	}
	made, err := s.b.Images.Commit(ctx, s.fs, raw, s.image)
	if err != nil {
		return fmt.Errorf("make the image of the step: %w", err)
	}
	s.said = said
	s.became(made.ID)
	return nil
}

// became notes the image after a step. Configs name the image that the next step begins with.
func (s *stage) became(id digest.Digest) {
	s.image = id
	s.config = s.config.clone()
	s.config.Image = id.String()
}
