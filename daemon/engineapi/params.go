package engineapi

import (
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// boolParam reads a flag as docker does: "", 0, no, false and none are false, anything else is true.
func boolParam(q url.Values, key string) bool {
	switch strings.ToLower(strings.TrimSpace(q.Get(key))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// intParam reads a number; absent, empty and "null" are 0.
func intParam(q url.Values, key string) (int64, error) {
	v := q.Get(key)
	if v == "" || v == "null" {
		return 0, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return 0, invalid("parameter %s: %q is no whole number", key, v)
	}
	return n, nil
}

// filters are what a list, an event stream or a prune is narrowed by: values by key.
type filters map[string][]string

// maxFilters bounds the text of filters, in bytes.
const maxFilters = 64 << 10

// parseFilters reads the parameter "filters", {"key":{"value":true}} or, as old clients send it, {"key":["value"]}. Keys that are
// not known are refused: what a client wants spared must not be removed.
func parseFilters(q url.Values, known ...string) (filters, error) {
	text := q.Get("filters")
	if text == "" || text == "null" {
		return nil, nil
	}
	if len(text) > maxFilters {
		return nil, invalid("invalid filter: %d bytes, at most %d are taken", len(text), maxFilters)
	}
	f := filters{}
	var sets map[string]map[string]bool
	if err := json.Unmarshal([]byte(text), &sets); err == nil {
		for key, set := range sets {
			f[key] = nil
			for v, on := range set {
				if on {
					f[key] = append(f[key], v)
				}
			}
			slices.Sort(f[key])
		}
	} else if err := json.Unmarshal([]byte(text), (*map[string][]string)(&f)); err != nil {
		return nil, invalid("invalid filter: %w", err)
	}
	for key := range f {
		if !slices.Contains(known, key) {
			return nil, invalid("invalid filter '%s'", key)
		}
	}
	return f, nil
}

// flag reads a filter that is true or false; without it, fallback.
func (f filters) flag(key string, fallback bool) (bool, error) {
	values := f[key]
	if len(values) == 0 {
		return fallback, nil
	}
	if len(values) > 1 {
		return false, invalid("invalid filter '%s=%s': give it one value", key, values)
	}
	switch strings.ToLower(values[0]) {
	case "1", "true", "":
		return true, nil
	case "0", "false":
		return false, nil
	}
	return false, invalid("invalid filter '%s=%s': neither true nor false", key, values)
}

// one reads a filter that has at most one value.
func (f filters) one(key string) (string, error) {
	switch values := f[key]; len(values) {
	case 0:
		return "", nil
	case 1:
		return values[0], nil
	default:
		return "", invalid("invalid filter '%s=%s': give it one value", key, values)
	}
}
