package attrs

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/platforms"
)

// Level is the part of an image an annotation belongs to.
type Level string

// The levels. A descriptor annotation stands in the parent's entry for a manifest or index.
const (
	Manifest           Level = "manifest"
	Index              Level = "index"
	ManifestDescriptor Level = "manifest-descriptor"
	IndexDescriptor    Level = "index-descriptor"
)

// Annotation is one annotation of an output.
type Annotation struct {
	Level Level
	// Platform limits it to the manifest of one platform, normalised as platforms.FormatAll has it; empty is all.
	Platform   string
	Key, Value string
}

// Annotations finds the attributes "annotation[-level][[platform]].key", level "manifest" if none is said. They come sorted,
// those of one platform last.
func Annotations(all map[string]string) ([]Annotation, error) {
	var list []Annotation
	for k, v := range all {
		name, ok := strings.CutPrefix(k, "annotation")
		if !ok || name == "" || !strings.ContainsAny(name[:1], ".-[") {
			continue
		}
		a, err := parseAnnotation(name)
		if err != nil {
			return nil, fmt.Errorf("attribute %s: %w", k, err)
		}
		a.Value = v
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b Annotation) int {
		return cmp.Or(cmp.Compare(a.Platform, b.Platform), cmp.Compare(a.Level, b.Level), cmp.Compare(a.Key, b.Key))
	})
	return list, nil
}

func parseAnnotation(name string) (Annotation, error) {
	a := Annotation{Level: Manifest}
	head, key, ok := cutOutside(name)
	if !ok || key == "" {
		return a, errors.New("no annotation key")
	}
	a.Key = key
	if i := strings.IndexByte(head, '['); i >= 0 {
		if !strings.HasSuffix(head, "]") {
			return a, errors.New("unclosed bracket")
		}
		p, err := platforms.Parse(head[i+1 : len(head)-1])
		if err != nil {
			return a, fmt.Errorf("platform of annotation: %w", err)
		}
		a.Platform, head = platforms.FormatAll(platforms.Normalize(p)), head[:i]
	}
	if level, ok := strings.CutPrefix(head, "-"); ok {
		a.Level = Level(level)
	}
	switch a.Level {
	case Manifest, ManifestDescriptor:
	case Index, IndexDescriptor:
		if a.Platform != "" {
			return a, errors.New("an index is of no platform")
		}
	default:
		return a, fmt.Errorf("unrecognized annotation type %s", a.Level)
	}
	return a, nil
}

// cutOutside cuts at the first dot that is not inside brackets: versions of platforms have dots.
func cutOutside(s string) (before, after string, ok bool) {
	depth := 0
	for i, c := range s {
		switch c {
		case '[':
			depth++
		case ']':
			depth--
		case '.':
			if depth == 0 {
				return s[:i], s[i+1:], true
			}
		}
	}
	return s, "", false
}
