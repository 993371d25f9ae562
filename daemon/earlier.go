package daemon

import (
	"context"
	"errors"
	"fmt"

	"github.com/slipwaybuild/slipway/exporter"
)

// FrontendResult is the frontend of requests that build nothing: their outputs are written from the result of an earlier build, which the
// option [attrBuild] names. Any client of BuildKit can ask for it.
const FrontendResult = "slipway.result"

// Options of [FrontendResult].
const (
	// attrBuild is the ref of a build, or the beginning of one.
	attrBuild = "build"
)

// exportEarlier writes outputs from the result of an earlier build.
func (b *build) exportEarlier(ctx context.Context, r Request, exporters []exporter.Exporter, caches cacheExports) (_ *Response, err error) {
	if !caches.none() {
		return nil, fmt.Errorf("%w: the result of an earlier build cannot be written as a cache", ErrInvalidRequest)
	}
	ref, o, err := b.engine.keptOf(ctx, r.FrontendAttrs[attrBuild])
	if err != nil {
		return nil, err
	}
	in, release, err := b.engine.keptInput(ctx, ref, o)
	defer func() { err = errors.Join(err, release()) }()
	if err != nil {
		return nil, err
	}
	in.Sessions, in.Host, in.Fetcher = b.sessions, b.engine.sameHost, b.engine.fetcher(b.groupNow)
	if r.Compat != 0 {
		in.Compat = r.Compat
	}
	if own, err := epoch(r.FrontendAttrs); err != nil {
		return nil, err
	} else if own != nil {
		in.SourceDateEpoch = own
	}
	// It is a build with a ref of its own, and stays as long as that is remembered.
	defer b.keepResult(ctx, in, o.Steps)()
	answer, err := b.export(ctx, exporters, in)
	if err != nil {
		return nil, err
	}
	return &Response{Exporter: answer}, nil
}
