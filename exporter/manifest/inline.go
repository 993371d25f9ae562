package manifest

import (
	"context"
	"encoding/json"
	"fmt"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/exporter"
)

// cacheKey is where BuildKit, too, keeps the inline cache in an image's config. The value is JSON inside base64.
const cacheKey = "moby.buildkit.cache.v0"

// addCache puts the inline cache into the config of a platform's image, if one was asked for.
func addCache(ctx context.Context, in exporter.Input, platform string, stack []layer, c *config) error {
	if in.InlineCache == nil {
		return nil
	}
	var diffIDs []digest.Digest
	for i, l := range stack {
		if c.kept[i] {
			diffIDs = append(diffIDs, l.diffID)
		}
	}
	cache, err := in.InlineCache(ctx, platform, diffIDs)
	if err != nil {
		return fmt.Errorf("prepare inline cache: %w", err)
	}
	if len(cache) == 0 {
		return nil
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(c.json, &fields); err != nil {
		return fmt.Errorf("parse image config: %w", err)
	}
	c.json, err = withFields(fields, map[string]any{cacheKey: cache})
	return err
}
