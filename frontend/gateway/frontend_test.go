package gateway

import "testing"

func TestBuiltinImages(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]bool{
		"docker/dockerfile:1":                     true,
		"docker/dockerfile":                       true,
		"docker.io/docker/dockerfile:1.7":         true,
		"docker/dockerfile:1.4-labs":              false,
		"docker/dockerfile-upstream:master":       true,
		"docker/dockerfile:1.8.1@sha256:" + zeros: true,
		"dockerfile.v0":                           true,
		"docker/dockerfile:2":                     false,
		"example.com/docker/dockerfile:1":         false,
		"somebody/else:1":                         false,
		"Not A Reference":                         false,
	} {
		if got := builtin(source); got != want {
			t.Errorf("builtin(%q) = %v, want %v", source, got, want)
		}
	}
}

const zeros = "0000000000000000000000000000000000000000000000000000000000000000"
