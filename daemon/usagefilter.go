package daemon

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// ParseFilter reads containerd filters; any of them may match, and none at all matches everything.
func ParseFilter(list []string) (func(filters.Adaptor) bool, error) {
	var given []string
	for _, f := range list {
		if strings.TrimSpace(f) != "" {
			given = append(given, f)
		}
	}
	if len(given) == 0 {
		return func(filters.Adaptor) bool { return true }, nil
	}
	f, err := filters.ParseAll(given...)
	if err != nil {
		return nil, fmt.Errorf("%w: filter: %w", ErrInvalidRequest, err)
	}
	return f.Match, nil
}

// ParseUsageFilter reads filters over what is on disk, with BuildKit's names of fields.
func ParseUsageFilter(list []string) (func(layers.Usage) bool, error) {
	match, err := ParseFilter(list)
	if err != nil {
		return nil, err
	}
	return func(u layers.Usage) bool { return match(usageAdaptor(u)) }, nil
}

func usageAdaptor(u layers.Usage) filters.Adaptor {
	return filters.AdapterFunc(func(path []string) (string, bool) {
		if len(path) == 0 {
			return "", false
		}
		switch path[0] {
		case "id":
			return u.ID, u.ID != ""
		case "parents":
			return strings.Join(u.Parents, ";"), len(u.Parents) > 0
		case "description":
			return u.Description, u.Description != ""
		case "inuse":
			return flag(u.InUse)
		case "mutable":
			return flag(u.Mutable)
		case "immutable":
			return flag(!u.Mutable)
		case "shared":
			return flag(u.Shared)
		case "private":
			return flag(!u.Shared)
		case "type":
			return string(u.Use), u.Use != ""
		}
		return "", false
	})
}

// flag is how filters see a boolean: present or absent.
func flag(b bool) (string, bool) { return strconv.FormatBool(b), b }
