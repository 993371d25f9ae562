package daemon

import (
	"runtime/debug"
)

// userAgent is what the daemon's requests to servers say they come from. Servers and proxies that know builds know them by
// BuildKit's name, so the version whose language we speak is in it.
func userAgent(version string) string {
	return Product + "/" + version + " buildkit/" + languageVersion()
}

// languageVersion is the version of BuildKit's module that was built in; "v0" where the build does not say.
func languageVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "v0"
	}
	for _, m := range info.Deps {
		if m.Path == "github.com/moby/buildkit" {
			return m.Version
		}
	}
	return "v0"
}
