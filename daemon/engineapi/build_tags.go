package engineapi

import (
	"strings"

	"github.com/distribution/reference"
)

// tags are the names an image gets.
type tags []reference.NamedTagged

// parseTags reads the names, each once. Empty ones are skipped.
func parseTags(list []string) (tags, error) {
	var out tags
	seen := map[string]bool{}
	for _, text := range list {
		if text == "" {
			continue
		}
		named, err := reference.ParseNormalizedNamed(text)
		if err != nil {
			return nil, invalid("%w", err)
		}
		if _, ok := named.(reference.Canonical); ok {
			return nil, invalid("build tag cannot contain a digest")
		}
		tagged, ok := reference.TagNameOnly(named).(reference.NamedTagged)
		if !ok {
			return nil, invalid("invalid tag %q", text)
		}
		if !seen[tagged.String()] {
			seen[tagged.String()] = true
			out = append(out, tagged)
		}
	}
	return out, nil
}

// names joins the full names, as outputs take them.
func (t tags) names() string {
	var list []string
	for _, n := range t {
		list = append(list, n.String())
	}
	return strings.Join(list, ",")
}

// familiar is a name as users write it.
func familiar(n reference.NamedTagged) string { return reference.FamiliarString(n) }
