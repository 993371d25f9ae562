// Package version says which build of Slipway this is.
package version

import "runtime/debug"

// release is set by the linker: -X github.com/slipwaybuild/slipway/cmd/internal/version.release=1.2.3.
var release string

// String returns the release, or what the go command knows of the source.
func String() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	return "0.1.0-dev"
}
