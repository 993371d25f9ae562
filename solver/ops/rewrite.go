package ops

import (
	"context"
	"fmt"
	"maps"

	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// PolicyError is a source that may not be used. It reads as its cause.
type PolicyError struct {
	// Op is the digest of the source op.
	Op  digest.Digest
	Err error
}

func (e *PolicyError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *PolicyError) Unwrap() error { return e.Err }

// asksAtOnce is how many sources pass a policy at a time: it may have to ask a client, or a registry, about each.
const asksAtOnce = 16

// rewrite passes the sources among ops by the policy, several at a time, and puts what it gives in their place.
func (l *Loader) rewrite(ctx context.Context, ops []*parsedOp) error {
	eg, egCtx := errgroup.WithContext(ctx)
	eg.SetLimit(asksAtOnce)
	for _, op := range ops {
		switch o := op.op.Op.(type) {
		case *pb.Op_Source:
			if o.Source != nil && l.o.Rewrite != nil {
				eg.Go(func() error { return l.rewriteSource(egCtx, op, o) })
			}
		case *pb.Op_Build:
			op.policy = l.o.Policy
		}
	}
	return eg.Wait()
}

func (l *Loader) rewriteSource(ctx context.Context, op *parsedOp, o *pb.Op_Source) error {
	src, err := l.o.Rewrite(ctx, o.Source, op.op.Platform)
	if err != nil {
		return &PolicyError{Op: op.digest, Err: err}
	}
	if src.Identifier != o.Source.Identifier || !maps.Equal(src.Attrs, o.Source.Attrs) {
		op.policy = string(digest.FromBytes(fmt.Appendf(nil, "%q %q", src.Identifier, src.Attrs)))
	}
	o.Source = src
	return nil
}
