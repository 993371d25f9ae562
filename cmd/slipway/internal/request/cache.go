package request

import (
	"errors"
	"fmt"
	"strings"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/tonistiigi/go-csvvalue"
)

func cacheEntry(s string) (*controlapi.CacheOptionsEntry, error) {
	e := &controlapi.CacheOptionsEntry{Attrs: map[string]string{}}
	fields, err := csvvalue.Fields(s, nil)
	if err != nil {
		return nil, err
	}
	if len(fields) == 1 && !strings.Contains(s, "=") {
		e.Type = "registry"
		e.Attrs["ref"] = s
		return e, nil
	}
	for _, f := range fields {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			return nil, fmt.Errorf("invalid value %q: expected key=value", f)
		}
		if k = strings.ToLower(strings.TrimSpace(k)); k == "type" {
			e.Type = v
			continue
		}
		e.Attrs[k] = v
	}
	if e.Type == "" {
		return nil, errors.New("type is required")
	}
	return e, nil
}
