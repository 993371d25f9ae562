package remotecache

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver"
)

// Limits of what is read from elsewhere.
const (
	// MaxConfig is the most that a config may have, in bytes.
	MaxConfig = 64 << 20
	// maxStack is the most layers that a result may have.
	maxStack   = 1024
	maxOutputs = 1024 // of a step
	// maxDescription is the longest description of a layer that is kept, in bytes.
	maxDescription = 8 << 10
)

// Parse reads a config. Layers are described by what is around it, if describe is given, or else by their own annotations; those that
// nothing describes are as good as missing. Records that name missing layers, and those that make no sense, are left out: whoever
// wrote them gains nothing by it, and a miss is what costs least.
func Parse(data []byte, describe map[digest.Digest]Layer) (*Cache, error) {
	if len(data) > MaxConfig {
		return nil, fmt.Errorf("cache config of %d bytes, the limit is %d", len(data), MaxConfig)
	}
	var w wireConfig
	if err := json.Unmarshal(data, &w); err != nil {
		return nil, fmt.Errorf("parse cache config: %w", err)
	}
	c := &Cache{}
	index := make([]int, len(w.Layers)) // into c.Layers, -1 if it cannot be used
	for i, l := range w.Layers {
		index[i] = -1
		layer, ok := describe[l.Blob]
		if !ok {
			layer, ok = fromAnnotations(l)
		}
		if len(layer.Description) > maxDescription {
			layer.Description = ""
		}
		if ok && layer.valid() {
			index[i] = len(c.Layers)
			c.Layers = append(c.Layers, layer)
		}
	}
	c.addMounts(w.Mounts)
	return c, c.addRecords(w.Records, index)
}

// ParseInline reads the records of an image's config. Their layers are those of the image; the
// slice belongs to the cache from now on.
func ParseInline(records []byte, imageLayers []Layer) (*Cache, error) {
	if len(records) > MaxConfig {
		return nil, fmt.Errorf("inline cache of %d bytes, the limit is %d", len(records), MaxConfig)
	}
	var w []wireRecord
	if err := json.Unmarshal(records, &w); err != nil {
		return nil, fmt.Errorf("parse inline cache: %w", err)
	}
	c := &Cache{Layers: imageLayers}
	index := make([]int, len(imageLayers))
	for i, l := range imageLayers {
		if index[i] = i; !l.valid() {
			index[i] = -1
		}
		if len(l.Description) > maxDescription {
			imageLayers[i].Description = ""
		}
	}
	return c, c.addRecords(w, index)
}

func fromAnnotations(l wireLayer) (Layer, bool) {
	if l.Annotations == nil {
		return Layer{}, false
	}
	layer := Layer{DiffID: l.Annotations.DiffID, CreatedAt: l.Annotations.CreatedAt, Description: l.Annotations.Description}
	layer.Descriptor.MediaType = l.Annotations.MediaType
	layer.Descriptor.Digest, layer.Descriptor.Size = l.Blob, l.Annotations.Size
	return layer, true
}

func (l Layer) valid() bool {
	return l.Descriptor.Digest.Validate() == nil && l.DiffID.Validate() == nil && l.Descriptor.Size >= 0
}

// draft is an entry of which not all records were read yet.
type draft struct {
	Entry
	outputs map[int]Output // those that can be had
	want    int            // how many there are; 0 if nothing says so
}

// addRecords puts together the outputs of each step.
func (c *Cache) addRecords(records []wireRecord, index []int) error {
	at := map[solver.Identity]*draft{}
	var drafts []*draft
	for _, r := range records {
		if r.Step == nil || !r.Step.ours() {
			c.Foreign++
			continue
		}
		id, err := parseKey(r.Step.Identity)
		if err != nil {
			return fmt.Errorf("parse cache config: identity %q: %w", r.Step.Identity, err)
		}
		d := at[id]
		if d == nil {
			d = &draft{Entry: Entry{Identity: id}, outputs: map[int]Output{}}
			at[id] = d
			drafts = append(drafts, d)
		}
		if err := d.add(r, index); err != nil {
			return fmt.Errorf("parse cache config: step %s: %w", r.Step.Identity, err)
		}
	}
	for _, d := range drafts {
		if d.whole() {
			c.Entries = append(c.Entries, d.Entry)
		}
	}
	return nil
}

// whole puts the outputs in order; false if one is missing.
func (d *draft) whole() bool {
	if d.want < 1 || d.want > maxOutputs || len(d.outputs) != d.want {
		return false
	}
	for i := range d.want {
		o, ok := d.outputs[i]
		if !ok {
			return false
		}
		d.Outputs = append(d.Outputs, o)
	}
	return !d.useless()
}

// outputOf is the output that a record is of; false if it cannot be had.
func outputOf(r wireRecord, index []int) (Output, bool) {
	if r.Step.Nil {
		return Output{Nil: true}, true
	}
	stack := r.Step.Stack
	if stack == nil && len(r.Chains) > 0 {
		stack = r.Chains[0].Layers
	}
	if len(stack) > maxStack {
		return Output{}, false
	}
	if len(stack) == 1 && stack[0] == absentLayer {
		return Output{Absent: true}, true
	}
	out := Output{Stack: make([]int, len(stack))}
	for i, l := range stack {
		switch {
		case l == NoLayer:
			out.Stack[i] = NoLayer
		case l < 0 || l >= len(index) || index[l] < 0:
			return Output{}, false
		default:
			out.Stack[i] = index[l]
		}
	}
	return out, true
}

func (d *draft) add(r wireRecord, index []int) error {
	s := r.Step
	if out, ok := outputOf(r, index); ok {
		d.outputs[s.Output] = out
	}
	for _, p := range s.Promises {
		key, err := parseKey(p)
		if err != nil {
			return fmt.Errorf("promise %q: %w", p, err)
		}
		d.Promises = append(d.Promises, key)
	}
	for _, content := range s.Contents {
		if content.Digest.Validate() == nil && content.Output >= 0 {
			d.Contents = append(d.Contents, solver.Content(content))
		}
	}
	if s.Used > 0 {
		d.Used = time.Unix(s.Used, 0)
	}
	if s.Output == 0 {
		d.Step, d.Name, d.want = s.ID, s.Name, s.Outputs
	}
	return nil
}

func parseKey(s string) (key [32]byte, err error) {
	if hex.DecodedLen(len(s)) != len(key) || len(s)%2 != 0 {
		return key, errors.New("not a key")
	}
	_, err = hex.Decode(key[:], []byte(s))
	return key, err
}
