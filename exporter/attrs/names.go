package attrs

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"
)

// Names are the image names that an output was given, whole ("docker.io/library/x:latest"), each once. "*" stands for those
// that the frontend chooses.
type Names []string

// ParseNames reads the attribute name: names separated by commas.
func ParseNames(all map[string]string) (Names, error) { return parseNames(all["name"]) }

func parseNames(list string) (Names, error) {
	var names Names
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			continue
		}
		if name != "*" {
			named, err := reference.ParseNormalizedNamed(name)
			if err != nil {
				return nil, fmt.Errorf("invalid image name %q: %w", name, err)
			}
			name = reference.TagNameOnly(named).String()
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// Resolve puts what the frontend chose, a list as in the attribute, in the place of "*".
func (n Names) Resolve(chosen string) ([]string, error) {
	var names []string
	for _, name := range n {
		list := Names{name}
		if name == "*" {
			var err error
			if list, err = parseNames(chosen); err != nil {
				return nil, fmt.Errorf("name given by the frontend: %w", err)
			}
			if len(list) == 0 || slices.Contains(list, "*") {
				return nil, errors.New("the frontend gave the image no name")
			}
		}
		for _, name := range list {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names, nil
}
