package request

import (
	"fmt"
	"os"

	controlapi "github.com/moby/buildkit/api/services/control"
)

// caches are what --cache-from and --cache-to ask for.
type caches struct {
	from, to []*controlapi.CacheOptionsEntry
	dirs     []cacheDir
	warnings []string
}

// parseCaches reads the flags and offers the directories that they name. A bare reference is a registry's.
func (s *sources) parseCaches(from, to []string) (c caches, err error) {
	for _, text := range from {
		e, err := cacheEntry(text)
		warning := ""
		if err == nil && e.Type == "local" {
			warning, err = s.importDir(e)
		}
		if err != nil {
			return c, fmt.Errorf("--cache-from %s: %w", text, err)
		}
		if warning != "" {
			c.warnings = append(c.warnings, warning)
			continue
		}
		fromEnvironment(e)
		c.from = append(c.from, e)
	}
	for _, text := range to {
		e, err := cacheEntry(text)
		if err == nil && e.Type == "local" {
			var d cacheDir
			d, err = s.exportDir(e)
			d.number = len(c.to)
			c.dirs = append(c.dirs, d)
		}
		if err != nil {
			return c, fmt.Errorf("--cache-to %s: %w", text, err)
		}
		fromEnvironment(e)
		c.to = append(c.to, e)
	}
	return c, nil
}

// fromEnvironment adds the access that the client's environment has, for the daemon has another.
func fromEnvironment(e *controlapi.CacheOptionsEntry) {
	add := func(attr, variable string) {
		if v := os.Getenv(variable); v != "" && e.Attrs[attr] == "" {
			e.Attrs[attr] = v
		}
	}
	switch e.Type {
	case "gha":
		add("token", "ACTIONS_RUNTIME_TOKEN")
		if os.Getenv("ACTIONS_CACHE_SERVICE_V2") != "" {
			add("url_v2", "ACTIONS_RESULTS_URL")
		}
		add("url", "ACTIONS_CACHE_URL")
	case "s3":
		if e.Attrs["access_key_id"] == "" && e.Attrs["secret_access_key"] == "" {
			add("access_key_id", "AWS_ACCESS_KEY_ID")
			add("secret_access_key", "AWS_SECRET_ACCESS_KEY")
			add("session_token", "AWS_SESSION_TOKEN")
		}
	}
}
