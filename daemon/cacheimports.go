package daemon

import (
	"context"
	"encoding/json"
	"errors"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/slipwaybuild/slipway/solver/progress"
)

var errNoImports = errors.New("caches of other machines cannot be imported yet; building without")

// tellImports shows, for each cache that the client wants imported, that it is not: a build without a cache is slower, and no
// failure.
func (b *build) tellImports(ctx context.Context, r Request) {
	imports := r.CacheImports
	if attr := r.FrontendAttrs["cache-imports"]; attr != "" {
		var list []gwclient.CacheOptionsEntry
		// What cannot be read is the frontend's to complain about.
		if json.Unmarshal([]byte(attr), &list) == nil {
			imports = append(imports, list...)
		}
	}
	for _, im := range imports {
		from := im.Attrs["ref"]
		if from == "" {
			from = im.Type
		}
		_ = b.step(ctx, "importing cache manifest from "+from, func(context.Context, progress.Writer) error { return errNoImports })
	}
}
