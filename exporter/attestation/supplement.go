package attestation

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	intoto "github.com/in-toto/in-toto-golang/in_toto"
	digest "github.com/opencontainers/go-digest"
)

// toolName is how a document says who added to it.
const toolName = "Tool: slipway"

// supplement says of each file in the main bill of materials, an SPDX document, which layer it is in, as BuildKit does. Documents that
// make no sense stay as they are, and so do files that somebody has commented on.
func (r Reader) supplement(ctx context.Context, a Attestation, predicate json.RawMessage) (json.RawMessage, error) {
	if r.LayerOf == nil || a.Type != intoto.PredicateSPDX || rank(a) != 0 {
		return predicate, nil
	}
	doc := map[string]json.RawMessage{}
	var version string
	var files []map[string]json.RawMessage
	if json.Unmarshal(predicate, &doc) != nil || json.Unmarshal(doc["spdxVersion"], &version) != nil || !strings.HasPrefix(version, "SPDX-") ||
		json.Unmarshal(doc["files"], &files) != nil || len(files) == 0 {
		return predicate, nil
	}
	for _, f := range files {
		var name, comment string
		if json.Unmarshal(f["fileName"], &name) != nil || name == "" || json.Unmarshal(f["comment"], &comment) == nil && comment != "" {
			continue
		}
		layer, ok, err := r.LayerOf(ctx, strings.TrimLeft(strings.TrimPrefix(name, "./"), "/"))
		if err != nil {
			return nil, fmt.Errorf("find the layer of %s: %w", name, err)
		}
		if ok {
			f["comment"] = json.RawMessage(fmt.Sprintf("%q", "layerID: "+layer.String()))
		}
	}
	creation := map[string]json.RawMessage{}
	var creators []string
	if json.Unmarshal(doc["creationInfo"], &creation) != nil || creation == nil {
		creation = map[string]json.RawMessage{}
	}
	if json.Unmarshal(creation["creators"], &creators) != nil || !slices.Contains(creators, toolName) {
		creators = append(creators, toolName)
	}
	return written(doc, creation, creators, files)
}

// written puts a document together again.
func written(doc, creation map[string]json.RawMessage, creators []string, files []map[string]json.RawMessage) (json.RawMessage, error) {
	for _, part := range []struct {
		of    map[string]json.RawMessage
		key   string
		value any
	}{{creation, "creators", creators}, {doc, "creationInfo", creation}, {doc, "files", files}} {
		b, err := json.Marshal(part.value)
		if err != nil {
			return nil, fmt.Errorf("write SPDX document: %w", err)
		}
		part.of[part.key] = b
	}
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("write SPDX document: %w", err)
	}
	return b, nil
}

// LayerOf finds the layer that a file came with, by the digest that the image has it under; false if no layer has it. Paths have no
// slash in front.
type LayerOf func(ctx context.Context, path string) (digest.Digest, bool, error)
