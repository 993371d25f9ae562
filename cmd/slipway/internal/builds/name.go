package builds

import (
	"path"
	"strings"

	controlapi "github.com/moby/buildkit/api/services/control"
)

// Name is what people call a build: what it makes, or else what it is made of.
func Name(r *controlapi.BuildHistoryRecord) string {
	for _, x := range r.Exporters {
		if name, _, _ := strings.Cut(x.Attrs["name"], ","); name != "" {
			return name
		}
	}
	name := source(r.FrontendAttrs)
	if target := r.FrontendAttrs["target"]; target != "" {
		name += " (" + target + ")"
	}
	return name
}

func source(attrs map[string]string) string {
	for _, key := range []string{"context", "vcs:localdir:context", "vcs:source"} {
		v := attrs[key]
		if v == "" || strings.HasPrefix(v, "http://buildkit-session/") || strings.HasPrefix(v, "input:") {
			continue
		}
		v, _, _ = strings.Cut(v, "#")
		return strings.TrimSuffix(path.Base(v), ".git")
	}
	if f := attrs["filename"]; f != "" {
		return f
	}
	return "Dockerfile"
}
