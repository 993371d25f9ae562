// Package cacheonly is the output that writes nothing: the build is done and stays in the cache.
package cacheonly

import (
	"context"

	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// Type is the output's type in requests.
const Type = "cacheonly"

// New returns the factory.
func New() exporter.Factory {
	return func(int, map[string]string) (exporter.Exporter, error) { return cacheOnly{}, nil }
}

type cacheOnly struct{}

func (cacheOnly) Name() string { return "keeping result in cache" }

func (cacheOnly) Export(context.Context, exporter.Input, progress.Writer) (map[string]string, error) {
	return nil, nil
}
