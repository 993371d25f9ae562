package provenance

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ReadEnvironment reads what provenance tells of where builds run: the objects in all *.json files of a directory as one, later names
// counting more. An empty name or a directory that is not there is nothing to tell.
func ReadEnvironment(dir string) (map[string]any, error) {
	if dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read provenance environment: %w", err)
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	all := map[string]any{}
	for _, e := range entries {
		if e.IsDir() || filepath.Ext(e.Name()) != ".json" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("read provenance environment: %w", err)
		}
		one := map[string]any{}
		if err := json.Unmarshal(b, &one); err != nil {
			return nil, fmt.Errorf("read provenance environment %s: %w", e.Name(), err)
		}
		maps.Copy(all, one)
	}
	return all, nil
}
