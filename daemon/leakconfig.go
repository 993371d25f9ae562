package daemon

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/slipwaybuild/slipway/solver/guard"
	"github.com/slipwaybuild/slipway/solver/ops"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// guardConfig searches the config of an image: its environment, labels, commands and history.
func (b *build) guardConfig(ref *reference, config []byte, m *guard.Matcher) error {
	if len(config) == 0 {
		return nil
	}
	var doc any
	if err := json.Unmarshal(config, &doc); err != nil {
		return fmt.Errorf("search the image's config for secrets: %w", err)
	}
	s := configSearch{m: m, allows: b.leaks.Allows}
	if s.look("", doc); s.id == "" {
		return nil
	}
	leak := &ops.LeakError{ID: s.id, Where: "the image's config, " + s.place}
	if err := b.leaks.Refuse(leak, progress.NewWriter(b.sink, "")); err == nil || ref == nil {
		return err
	}
	return atWord(leak, ref.def, s.word)
}

// environment is that of an image, none if its config cannot be read: its exporter will say so.
func environment(config []byte) []string {
	var image struct{ Config struct{ Env []string } }
	_ = json.Unmarshal(config, &image)
	return image.Config.Env
}

// configSearch is one search of a JSON document.
type configSearch struct {
	m      *guard.Matcher
	allows func(string) bool

	id, place string
	word      string // the name that stands before the value, as in the source; "" for none
}

// look searches a value that is at a place, and all within.
func (s *configSearch) look(place string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			if s.text(place+" (a name)", k, ""); s.id != "" {
				return
			}
			if text, ok := v[k].(string); ok {
				s.text(strings.TrimPrefix(place+"."+k, "."), text, k)
			} else {
				s.look(strings.TrimPrefix(place+"."+k, "."), v[k])
			}
			if s.id != "" {
				return
			}
		}
	case []any:
		for i, one := range v {
			if s.look(fmt.Sprintf("%s[%d]", place, i), one); s.id != "" {
				return
			}
		}
	case string:
		s.text(place, v, "")
	}
}

// assignment finds the name of a variable whose value a text ends in.
var assignment = regexp.MustCompile(`(?:^|\s)([A-Za-z_][A-Za-z0-9_]*)=\S*$`)

func (s *configSearch) text(place, text, word string) {
	id := s.m.Find([]byte(text), s.allows)
	if id == "" {
		return
	}
	s.id, s.place, s.word = id, s.m.MaskString(place), word
	before, _, _ := strings.Cut(s.m.MaskString(text), guard.Mask)
	if found := assignment.FindStringSubmatch(before); found != nil {
		s.word = found[1]
		s.place += ", " + found[1]
	}
}

// atWord adds to an error the first line of the source that has a word.
func atWord(err error, def *pb.Definition, word string) error {
	if word == "" {
		return err
	}
	whole := regexp.MustCompile(`(^|[^A-Za-z0-9_.-])` + regexp.QuoteMeta(word) + `($|[^A-Za-z0-9_.-])`)
	for _, info := range def.GetSource().GetInfos() {
		for i, line := range strings.Split(string(info.GetData()), "\n") {
			if whole.MatchString(line) {
				at := &pb.Position{Line: int32(i + 1)}
				return errdefs.WithSource(err, &errdefs.Source{Info: info, Ranges: []*pb.Range{{Start: at, End: at}}})
			}
		}
	}
	return err
}
