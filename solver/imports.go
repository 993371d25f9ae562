package solver

import (
	"context"

	digest "github.com/opencontainers/go-digest"
)

// Imports are caches of other machines, which one build reads beside the solver's own: what that lacks is asked for here, and what is
// found goes into it. All methods are safe for concurrent use and may wait for the network. An error is the reason of a miss, never
// the failure of a step.
type Imports interface {
	// Alias looks a promise up.
	Alias(ctx context.Context, p Promise) (Identity, bool, error)
	// Results looks an identity up and takes hold of its results, which the caller owns. A record of which anything is known to be
	// gone is a miss.
	Results(ctx context.Context, i Identity) (*Imported, bool, error)
	// Content looks up a digest that a selector gave for one output of an identity, where it was found.
	Content(ctx context.Context, i Identity, output int, selector string) (digest.Digest, bool, error)
}

// Imported is a record of another machine's cache.
type Imported struct {
	Record   Record
	Results  []Result
	Contents []Content
}

// Content is what a selector saw of one output.
type Content struct {
	Output   int
	Selector string
	Digest   digest.Digest
}

// alias looks p up in the solver's cache, and then in those that the build imports.
func (b *Build) alias(ctx context.Context, p Promise) (aliasAnswer, error) {
	a, err := b.s.alias(ctx, p)
	if err != nil || a.known || b.imports == nil {
		return a, err
	}
	return b.importedAlias(ctx, p, a)
}

// importedAlias looks p up in what the build imports; otherwise it answers what is there.
func (b *Build) importedAlias(ctx context.Context, p Promise, otherwise aliasAnswer) (aliasAnswer, error) {
	if b.imports == nil {
		return otherwise, nil
	}
	id, ok, err := b.imports.Alias(ctx, p)
	switch {
	case ctx.Err() != nil:
		return aliasAnswer{}, ctx.Err()
	case err != nil:
		return aliasAnswer{reason: storeFault(err)}, nil
	case !ok:
		return otherwise, nil
	}
	return aliasAnswer{identity: id, known: true, imported: true}, nil
}

// renamed is [Solver.renamed], with what the build imports.
func (b *Build) renamed(ctx context.Context, id Identity) Identity {
	to := b.s.renamed(ctx, id)
	if to != id || b.imports == nil {
		return to
	}
	// A record of our own under the plain name is as good as its successor elsewhere, and nearer.
	if a, err := b.importedAlias(ctx, renaming(id), aliasAnswer{}); err == nil && a.known && !b.s.has(ctx, id) {
		return a.identity
	}
	return id
}

// has tells whether the solver's cache has a record of id that can be used.
func (s *Solver) has(ctx context.Context, id Identity) bool {
	found := s.results(ctx, id)
	if found.out == nil {
		return false
	}
	s.release(found.out)
	return true
}

// lookup looks id up in the solver's cache, and then in those that the build imports. What was found to be lost
// while the build runs is not imported again: it would be found lost again.
func (b *Build) lookup(ctx context.Context, id Identity) (lookupAnswer, error) {
	found, err := b.s.lookup(ctx, id)
	if err != nil || found.out != nil || b.imports == nil || b.s.losses.since(id, b.born) {
		return found, err
	}
	born := b.s.losses.now()
	imp, ok, err := b.imports.Results(ctx, id)
	switch {
	case err != nil && ctx.Err() != nil:
		return lookupAnswer{}, ctx.Err()
	case err != nil:
		return lookupAnswer{reason: storeFault(err)}, nil
	case !ok:
		return found, nil
	}
	b.s.adopt(context.WithoutCancel(ctx), id, imp)
	return lookupAnswer{out: newOutcome(id, imp.Results, born)}, nil
}

// adopt remembers what was imported, so that later builds need not import it.
func (s *Solver) adopt(ctx context.Context, id Identity, imp *Imported) {
	if err := s.store.PutResults(ctx, id, imp.Record, imp.Results); err != nil {
		s.log.Warn("store imported result", "identity", id, "error", err)
		return
	}
	for _, c := range imp.Contents {
		if err := s.store.PutContent(ctx, id, c.Output, c.Selector, c.Digest); err != nil {
			s.log.Warn("store imported content digest", "identity", id, "error", err)
		}
	}
}

// knownContent is [Solver.knownContent], with what the build imports. A digest that another machine found in what it made counts
// only while nothing of that name was made here.
func (b *Build) knownContent(ctx context.Context, k contentKey) (d digest.Digest, ok bool, reason string) {
	d, ok, reason = b.s.knownContent(ctx, k)
	if ok || b.imports == nil {
		return d, ok, reason
	}
	d, ok, err := b.imports.Content(ctx, k.identity, k.output, k.selector)
	switch {
	case err != nil:
		return "", false, storeFault(err)
	case !ok || b.owned(k.identity) != nil || b.s.has(ctx, k.identity):
		return "", false, reason
	}
	return d, true, ""
}
