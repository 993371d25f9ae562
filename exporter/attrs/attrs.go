// Package attrs reads the attributes of an output: the strings that clients give it, by key. Keys are those of BuildKit's
// clients. Errors name the key.
package attrs

import (
	"fmt"
	"strconv"
)

// Bool reads a boolean; one that is there without a value is true, one that is not there is fallback.
func Bool(all map[string]string, key string, fallback bool) (bool, error) {
	v, ok := all[key]
	if !ok {
		return fallback, nil
	}
	if v == "" {
		return true, nil
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		return false, fmt.Errorf("non-bool value for %s: %q", key, v)
	}
	return b, nil
}

// Epoch is the attribute source-date-epoch of one output.
type Epoch struct {
	// Given says that the output has one of its own, which counts even where it is empty: then there is no epoch.
	Given bool
	// Seconds since 1970; nil for none.
	Seconds *int64
}

// ParseEpoch reads source-date-epoch.
func ParseEpoch(all map[string]string) (Epoch, error) {
	v, ok := all["source-date-epoch"]
	if !ok {
		return Epoch{}, nil
	}
	n, err := Seconds(v)
	if err != nil {
		return Epoch{}, fmt.Errorf("source-date-epoch: %w", err)
	}
	return Epoch{Given: true, Seconds: n}, nil
}

// Seconds reads a number of seconds; nil for an empty string.
func Seconds(v string) (*int64, error) {
	if v == "" {
		return nil, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%q is no whole number of seconds", v)
	}
	return &n, nil
}
