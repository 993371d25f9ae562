package remotecache

import (
	"encoding/json"
	"fmt"
	"slices"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver"
)

// maxSelector bounds the selectors of content digests that are written, in bytes.
const maxSelector = 4 << 10

// Marshal writes a config. Layers get annotations if annotate is set, as is needed where no manifest describes them.
func (c *Cache) Marshal(annotate bool) ([]byte, error) {
	w := wireConfig{Layers: make([]wireLayer, len(c.Layers))}
	for i, l := range c.Layers {
		w.Layers[i] = wireLayer{Blob: l.Descriptor.Digest, Parent: -1}
		if annotate {
			w.Layers[i].Annotations = &wireAnnotations{
				MediaType: l.Descriptor.MediaType, DiffID: l.DiffID, Size: l.Descriptor.Size, CreatedAt: l.CreatedAt.UTC(),
				Description: l.Description,
			}
		}
	}
	w.Records, w.Mounts = c.records(), c.wireMounts()
	data, err := json.Marshal(w)
	if err != nil {
		return nil, fmt.Errorf("write cache config: %w", err)
	}
	return data, nil
}

// MarshalInline writes the records alone, for the config of the image whose layers are those of the cache.
func (c *Cache) MarshalInline() ([]byte, error) {
	data, err := json.Marshal(c.records())
	if err != nil {
		return nil, fmt.Errorf("write inline cache: %w", err)
	}
	return data, nil
}

func (c *Cache) records() []wireRecord {
	records := make([]wireRecord, 0, len(c.Entries))
	for _, e := range c.Entries {
		for i, o := range e.Outputs {
			r := wireRecord{
				Digest: recordDigest(e.Identity, i),
				Step:   &wireStep{Keys: solver.KeyFormat, Identity: e.Identity.String(), Output: i, Nil: o.Nil},
			}
			if i == 0 {
				e.describe(r.Step)
			}
			switch {
			case o.Absent:
				r.Step.Stack = []int{absentLayer}
			case slices.Contains(o.Stack, NoLayer):
				r.Step.Stack = o.Stack
			case len(o.Stack) > 0:
				r.Chains = []wireChain{{Layers: o.Stack, CreatedAt: e.Used.UTC()}}
			}
			records = append(records, r)
		}
	}
	return records
}

// describe fills in what is said once of a step.
func (e Entry) describe(s *wireStep) {
	s.Outputs, s.ID, s.Name = len(e.Outputs), e.Step, e.Name
	if !e.Used.IsZero() {
		s.Used = e.Used.Unix()
	}
	for _, p := range e.Promises {
		s.Promises = append(s.Promises, p.String())
	}
	for _, content := range e.Contents {
		if len(content.Selector) <= maxSelector {
			s.Contents = append(s.Contents, wireContent(content))
		}
	}
}

// recordDigest names a record to those who know nothing of our keys.
func recordDigest(id solver.Identity, output int) digest.Digest {
	return digest.FromString(fmt.Sprintf("%s %s %d", solver.KeyFormat, id, output))
}
