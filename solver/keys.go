package solver

import (
	"context"
	"fmt"
	"strconv"

	digest "github.com/opencontainers/go-digest"
)

// promised is a promise and what it was made of.
type promised struct {
	promise Promise
	parts   Parts
	// fresh: this step or one it depends on ignores the cache, so in this build the promise is not looked up. It is still
	// the one under which later builds find what comes of it.
	fresh bool
}

// askPromise answers promise(v) = H(key of the op, promises of the inputs).
func (b *Build) askPromise(ctx context.Context, n *node) (promised, error) {
	inputs := make([]promised, len(n.v.Inputs))
	err := each(ctx, len(inputs), func(ctx context.Context, i int) (err error) {
		inputs[i], err = b.promises.of(ctx, n.input(i))
		return err
	})
	if err != nil {
		return promised{}, err
	}
	p := promised{fresh: n.v.IgnoreCache}
	if p.parts, err = b.opKey(ctx, n); err != nil {
		return promised{}, err
	}
	for i, in := range inputs {
		p.parts = append(p.parts, Part{
			Name:  inputPart(i, "promise"),
			Value: in.promise.String() + "/" + strconv.Itoa(n.v.Inputs[i].Output),
		})
		p.fresh = p.fresh || in.fresh
	}
	p.promise = Promise(p.parts.Sum("promise"))
	return p, nil
}

// opKey asks the op for its parts, which are copied: lists are built upon them.
func (b *Build) opKey(ctx context.Context, n *node) (Parts, error) {
	if err := n.enter(ctx); err != nil {
		return nil, err
	}
	defer n.exit()
	parts, err := n.v.Op.Key(ctx, ownCall{n})
	if err != nil {
		if ctx.Err() == nil {
			n.report.failed(err)
		}
		return nil, inVertex(n.v, err)
	}
	return append(make(Parts, 0, len(parts)+len(n.v.Inputs)+1), parts...), nil
}

// named is an identity formed from what is read, and what it was made of.
type named struct {
	identity Identity
	parts    Parts
	// plain is what the identity would be if the step did not ignore the cache.
	plain Identity
}

// reading is how one input enters an identity.
type reading struct {
	identity Identity
	content  digest.Digest // of what is selected; "" if the input is read whole
}

// form makes the identity of n from what read says of its inputs.
func (b *Build) form(ctx context.Context, n *node, read func(ctx context.Context, i int) (reading, error)) (named, error) {
	p, err := b.promises.of(ctx, n)
	if err != nil {
		return named{}, err
	}
	inputs := make([]reading, len(n.v.Inputs))
	err = each(ctx, len(inputs), func(ctx context.Context, i int) (err error) {
		inputs[i], err = read(ctx, i)
		return err
	})
	if err != nil {
		return named{}, err
	}
	// The op's own parts come first in the promise's; those of the inputs are replaced.
	parts := append(make(Parts, 0, len(p.parts)+1), p.parts[:len(p.parts)-len(inputs)]...)
	for i, in := range inputs {
		parts = append(parts, inputReading(i, n.v.Inputs[i].Output, in))
	}
	id := Identity(parts.Sum("identity"))
	if n.v.IgnoreCache {
		parts = append(parts, Part{Name: "ignore-cache", Value: b.nonce})
		return named{identity: Identity(parts.Sum("identity")), parts: parts, plain: id}, nil
	}
	return named{identity: b.renamed(ctx, id), parts: parts, plain: id}, nil
}

func inputReading(i, output int, in reading) Part {
	if in.content != "" {
		return Part{Name: inputPart(i, "content"), Value: in.content.String()}
	}
	return Part{Name: inputPart(i, "identity"), Value: outputIdentity(in.identity, output).String()}
}

func inputPart(i int, what string) string { return fmt.Sprintf("input.%d.%s", i, what) }

// outputIdentity names one output of what id names.
func outputIdentity(id Identity, output int) Identity {
	return Identity(Parts{{Name: "step", Value: id.String()}, {Name: "output", Value: strconv.Itoa(output)}}.Sum("output"))
}

// renaming is where a step that ignored the cache leaves word that what used to be named id has a successor. Whoever forms id
// later, by whatever way, uses the successor's name, so that no build mixes a new result with what was made from the old one.
func renaming(id Identity) Promise {
	return Promise(Parts{{Name: "identity", Value: id.String()}}.Sum("renamed"))
}
