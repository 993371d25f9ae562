package daemon

import (
	"encoding/json"
	"maps"
	"slices"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
)

// toldOfCaches are the attributes of caches that may be kept and shown. Others may give access.
var toldOfCaches = []string{"ref", "src", "tag", "digest", "mode", "bucket", "region", "prefix", "name", "scope", "container", "account_name", "repository"}

// withoutAccess returns a frontend's options as they may be remembered: those of cache imports hold keys and tokens.
func withoutAccess(attrs map[string]string) map[string]string {
	text, ok := attrs["cache-imports"]
	if !ok {
		return attrs
	}
	attrs = maps.Clone(attrs)
	delete(attrs, "cache-imports")
	var list []gwclient.CacheOptionsEntry
	if json.Unmarshal([]byte(text), &list) != nil {
		return attrs
	}
	for _, im := range list {
		maps.DeleteFunc(im.Attrs, func(k, _ string) bool { return !slices.Contains(toldOfCaches, k) })
	}
	if safe, err := json.Marshal(list); err == nil {
		attrs["cache-imports"] = string(safe)
	}
	return attrs
}
