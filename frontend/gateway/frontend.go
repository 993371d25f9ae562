package gateway

import (
	"context"
	"fmt"
	"strings"

	"github.com/distribution/reference"
	"github.com/slipwaybuild/slipway/frontend"
)

// Name is what requests call this frontend.
const Name = "gateway.v0"

// Frontend serves "gateway.v0": a frontend named by an image. The Dockerfile frontend's own images are answered by the one
// that is built in, so that the common `# syntax=docker/dockerfile:1` costs no pull and works without a network.
type Frontend struct {
	dockerfile frontend.Frontend
}

// NewFrontend returns the frontend; dockerfile is the built-in one.
func NewFrontend(dockerfile frontend.Frontend) *Frontend { return &Frontend{dockerfile: dockerfile} }

// Build runs the frontend that the option "source" names.
func (f *Frontend) Build(ctx context.Context, b frontend.Bridge, r frontend.Request) (*frontend.Result, error) {
	source := r.Opts["source"]
	if source == "" {
		return nil, fmt.Errorf("frontend %s: no source image was named", Name)
	}
	if builtin(source) {
		return f.dockerfile.Build(ctx, b, r)
	}
	return nil, &UnsupportedImageError{Source: source}
}

// UnsupportedImageError is returned for a frontend image that cannot be run.
type UnsupportedImageError struct{ Source string }

func (e *UnsupportedImageError) Error() string {
	return fmt.Sprintf("frontend image %q: frontends other than docker/dockerfile cannot be run yet", e.Source)
}

// builtin tells whether an image is a release of the Dockerfile frontend whose language the built-in one speaks: any 1.x, also
// by digest. The labs channel has syntax of its own.
func builtin(source string) bool {
	switch source {
	case "dockerfile.v0":
		return true
	}
	named, err := reference.ParseNormalizedNamed(source)
	if err != nil {
		return false
	}
	if reference.Domain(named) != "docker.io" {
		return false
	}
	switch reference.Path(named) {
	case "docker/dockerfile", "docker/dockerfile-upstream":
	default:
		return false
	}
	tag := "latest"
	if tagged, ok := named.(reference.Tagged); ok {
		tag = tagged.Tag()
	} else if _, ok := named.(reference.Digested); ok {
		return true
	}
	if strings.HasSuffix(tag, "labs") {
		return false
	}
	return tag == "latest" || tag == "master" || tag == "1" || strings.HasPrefix(tag, "1.") || strings.HasPrefix(tag, "1-")
}
