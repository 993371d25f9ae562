package daemon

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/slipwaybuild/slipway/solver/guard"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// warnOfArgs warns of build arguments that look like credentials: unlike secrets they are in the image's history, in caches and in what
// is said of the build. The frontend warns of those that are called like one.
func (b *build) warnOfArgs(attrs map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(attrs)) {
		name, ok := strings.CutPrefix(k, "build-arg:")
		if !ok {
			continue
		}
		if kind := guard.LooksLike(attrs[k]); kind != "" {
			b.warn(fmt.Sprintf("build argument %q looks like %s: build arguments stay in the image's history; pass it with --secret and mount it where it is needed", name, kind))
		}
	}
}

// warnOfEnv does the same for the environment of an image.
func (b *build) warnOfEnv(env []string) {
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		if kind := guard.LooksLike(value); kind != "" {
			b.warn(fmt.Sprintf("environment variable %q of the image looks like %s: whoever has the image can read it", name, kind))
		}
	}
}

// warn tells of the build as a whole, once of the same.
func (b *build) warn(text string) {
	if _, said := b.warned.LoadOrStore(text, true); !said {
		b.sink.Append(progress.Event{Warning: &progress.Warning{Level: 1, Short: []byte(text)}})
	}
}
