package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// warnOfPlatforms tells viewers when what was built is not for the platforms that were asked for.
func (b *build) warnOfPlatforms(ctx context.Context, asked string, ps exptypes.Platforms, several bool) error {
	text := platformMismatch(asked, ps, several)
	if text == "" {
		return nil
	}
	return b.step(ctx, "verifying platforms of the result", func(_ context.Context, p progress.Writer) error {
		p.Warn(progress.Warning{Level: 1, Short: []byte(text)})
		return nil
	})
}

// platformMismatch compares the platforms of a result with those of the request, in the words of BuildKit; "" if they agree.
func platformMismatch(asked string, ps exptypes.Platforms, several bool) string {
	var want []ocispecs.Platform
	for _, name := range strings.Split(asked, ",") {
		p, err := platforms.Parse(name)
		if err != nil {
			return fmt.Sprintf("Invalid platform result requested %q: %v", name, err)
		}
		p = platforms.Normalize(p)
		if slices.ContainsFunc(want, func(w ocispecs.Platform) bool { return platforms.FormatAll(w) == platforms.FormatAll(p) }) {
			return fmt.Sprintf("Duplicate platform result requested %q", name)
		}
		want = append(want, p)
	}
	var got []ocispecs.Platform
	for _, p := range ps.Platforms {
		got = append(got, platforms.Normalize(p.Platform))
	}
	switch {
	case len(want) == 1 && len(got) == 1:
		if matchesAny(got[0], want) {
			return ""
		}
		return fmt.Sprintf("Requested platform %q does not match result platform %q", asked, platforms.FormatAll(got[0]))
	case !several && len(want) > 1:
		return "Multiple platforms requested but result is not multi-platform"
	case len(want) == len(got) && !slices.ContainsFunc(got, func(p ocispecs.Platform) bool { return !matchesAny(p, want) }):
		return ""
	}
	return fmt.Sprintf("Requested platforms %s do not match result platforms %s", formatPlatforms(want), formatPlatforms(got))
}

// matchesAny tells whether p is one of the platforms. The version of an operating system counts only if it was asked for.
func matchesAny(p ocispecs.Platform, want []ocispecs.Platform) bool {
	return slices.ContainsFunc(want, func(w ocispecs.Platform) bool {
		q := p
		if w.OSVersion == "" {
			q.OSVersion = ""
		}
		return platforms.FormatAll(w) == platforms.FormatAll(q) || platforms.OnlyStrict(w).Match(p)
	})
}

func formatPlatforms(list []ocispecs.Platform) string {
	var names []string
	for _, p := range list {
		names = append(names, platforms.FormatAll(p))
	}
	slices.Sort(names)
	return strings.Join(names, ",")
}
