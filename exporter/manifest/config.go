package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// defaultPath is the PATH of an image whose config nobody wrote.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// layer is one layer as the config sees it.
type layer struct {
	diffID      digest.Digest
	description string
	created     time.Time
	empty       bool
}

func (l layer) time() *time.Time {
	if l.created.IsZero() {
		return nil
	}
	t := l.created.UTC()
	return &t
}

// configInput is what a config is made of.
type configInput struct {
	raw      []byte // the frontend's; nil for none
	base     []byte // the base image's; nil for none
	platform ocispecs.Platform
	stack    []layer
	epoch    *time.Time
}

// config is a config as it goes into the image.
type config struct {
	json    []byte
	kept    []bool // which layers of the stack are in it
	created *time.Time
}

// patchConfig puts the layers and their history into a config. Everything else in it stays byte for byte what the frontend
// wrote, fields this package does not know included. Layers without content are left out: their history entries say so.
func patchConfig(in configInput) (c config, err error) {
	if len(in.raw) == 0 {
		if in.raw, err = defaultConfig(in.platform); err != nil {
			return c, err
		}
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(in.raw, &fields); err != nil {
		return c, fmt.Errorf("parse image config: %w", err)
	}
	if fields == nil {
		return c, errors.New("invalid null image config for export")
	}
	var known, base struct {
		Created *time.Time         `json:"created"`
		History []ocispecs.History `json:"history"`
	}
	if err := json.Unmarshal(in.raw, &known); err != nil {
		return c, fmt.Errorf("parse image config: %w", err)
	}
	if len(in.base) > 0 {
		if err := json.Unmarshal(in.base, &base); err != nil {
			return c, fmt.Errorf("parse config of the base image: %w", err)
		}
	}
	history, kept := normalise(known.History, in.stack)
	c.kept, c.created = kept, known.Created
	if in.epoch != nil {
		clampTimes(history[inherited(known.History, base.History):], *in.epoch)
	}
	if c.created == nil {
		c.created = newest(history)
	}
	if in.epoch != nil && (c.created == nil || c.created.After(*in.epoch)) {
		c.created = in.epoch
	}
	rootfs := ocispecs.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	for i, l := range in.stack {
		if kept[i] {
			rootfs.DiffIDs = append(rootfs.DiffIDs, l.diffID)
		}
	}
	values := map[string]any{"rootfs": rootfs, "history": history}
	if c.created != nil && (known.Created == nil || !c.created.Equal(*known.Created)) {
		values["created"] = c.created
	}
	if blank(fields["os"]) || blank(fields["architecture"]) {
		values["os"], values["architecture"] = in.platform.OS, in.platform.Architecture
		if in.platform.Variant != "" {
			values["variant"] = in.platform.Variant
		}
	}
	c.json, err = withFields(fields, values)
	return c, err
}

// withFields writes fields with some values replaced.
func withFields(fields map[string]json.RawMessage, values map[string]any) ([]byte, error) {
	for key, value := range values {
		b, err := json.Marshal(value)
		if err != nil {
			return nil, fmt.Errorf("write %s of image config: %w", key, err)
		}
		fields[key] = b
	}
	b, err := json.Marshal(fields)
	if err != nil {
		return nil, fmt.Errorf("write image config: %w", err)
	}
	return b, nil
}

// blank tells whether a string is missing.
func blank(v json.RawMessage) bool {
	v = bytes.TrimSpace(v)
	return len(v) == 0 || string(v) == `""` || string(v) == "null"
}

func defaultConfig(platform ocispecs.Platform) ([]byte, error) {
	var img ocispecs.Image
	img.Platform = platform
	img.RootFS.Type = "layers"
	img.Config.WorkingDir = "/"
	if platform.OS != "windows" {
		img.Config.Env = []string{defaultPath}
	}
	b, err := json.Marshal(img)
	if err != nil {
		return nil, fmt.Errorf("write image config: %w", err)
	}
	return b, nil
}

// newest is the time of the last history entry that has one.
func newest(history []ocispecs.History) *time.Time {
	for i := len(history) - 1; i >= 0; i-- {
		if history[i].Created != nil {
			return history[i].Created
		}
	}
	return nil
}
