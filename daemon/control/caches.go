package control

import (
	"maps"

	controlapi "github.com/moby/buildkit/api/services/control"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/slipwaybuild/slipway/daemon"
)

// cacheImports reads the list, and the references that clients sent before there was one.
func cacheImports(c *controlapi.CacheOptions) []gwclient.CacheOptionsEntry {
	var list []gwclient.CacheOptionsEntry
	for _, im := range c.GetImports() {
		list = append(list, gwclient.CacheOptionsEntry{Type: im.GetType(), Attrs: im.GetAttrs()})
	}
	for _, ref := range c.GetImportRefsDeprecated() {
		list = append(list, gwclient.CacheOptionsEntry{Type: "registry", Attrs: map[string]string{"ref": ref}})
	}
	return list
}

// cacheExports reads the list, and the one export that clients sent before there was one.
func cacheExports(c *controlapi.CacheOptions) []daemon.CacheExport {
	var list []daemon.CacheExport
	for _, ex := range c.GetExports() {
		list = append(list, daemon.CacheExport{Type: ex.GetType(), Attrs: ex.GetAttrs()})
	}
	if ref := c.GetExportRefDeprecated(); ref != "" {
		attrs := maps.Clone(c.GetExportAttrsDeprecated())
		if attrs == nil {
			attrs = map[string]string{}
		}
		attrs["ref"] = ref
		list = append(list, daemon.CacheExport{Type: "registry", Attrs: attrs})
	}
	return list
}
