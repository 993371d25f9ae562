package attestation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"

	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/result"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// Limits on what a scanner or a frontend gives.
const (
	maxSize  = 80 << 20 // of one predicate or statement, in bytes
	maxFiles = 1000     // of a bundle
)

// Reader reads attestations out of layers.
type Reader struct {
	Layers *layers.Store
	// Fetcher brings layers that are not here.
	Fetcher layers.Fetcher
	// Progress may be nil.
	Progress progress.Writer
	// LayerOf is asked for the layers of files in the main bill of materials; nil leaves it as it is.
	LayerOf LayerOf
}

// Unbundle takes bundles apart. What it returns is of kind InToto, the main bill of materials first.
func (r Reader) Unbundle(ctx context.Context, list []Attestation) ([]Attestation, error) {
	var out []Attestation
	for _, a := range list {
		if err := a.Check(); err != nil {
			return nil, err
		}
		if a.Kind == gwpb.AttestationKind_InToto {
			out = append(out, a)
			continue
		}
		more, err := r.bundle(ctx, a)
		if err != nil {
			return nil, fmt.Errorf("read attestation bundle %s: %w", path.Join("/", a.Path), err)
		}
		out = append(out, more...)
	}
	coreFirst(out)
	return out, nil
}

// predicate reads what an attestation says.
func (r Reader) predicate(ctx context.Context, a Attestation, image []ocispecs.Descriptor) (json.RawMessage, error) {
	if a.Content != nil {
		b, err := a.Content(ctx, image)
		return orNull(b), err
	}
	tree, err := r.tree(ctx, a.Ref)
	if err != nil {
		return nil, err
	}
	b, err := readFile(ctx, tree, a.Path)
	if err != nil {
		return nil, fmt.Errorf("read attestation %s: %w", path.Join("/", a.Path), err)
	}
	if len(b) > 0 && !json.Valid(b) {
		return nil, fmt.Errorf("read attestation %s: it is no JSON", path.Join("/", a.Path))
	}
	return orNull(b), nil
}

// orNull makes JSON of nothing.
func orNull(b []byte) json.RawMessage {
	if len(b) == 0 {
		return json.RawMessage("null")
	}
	return b
}

func (r Reader) tree(ctx context.Context, ref *layers.Ref) (fstree.Tree, error) {
	if err := r.Layers.Fetch(ctx, ref, r.Fetcher, r.Progress); err != nil {
		return nil, err
	}
	return r.Layers.Tree(ctx, ref)
}

// readFile reads a regular file, named as a process with the tree as its root would name it.
func readFile(ctx context.Context, tree fstree.Tree, name string) ([]byte, error) {
	p, err := fstree.Resolve(ctx, tree, name, true)
	if err != nil {
		return nil, err
	}
	e, err := tree.Stat(ctx, p)
	if err != nil {
		return nil, err
	}
	if !e.IsRegular() {
		return nil, fstree.ErrNotRegular
	}
	return fstree.ReadFile(ctx, tree, p, maxSize)
}

func (r Reader) bundle(ctx context.Context, a Attestation) ([]Attestation, error) {
	tree, err := r.tree(ctx, a.Ref)
	if err != nil {
		return nil, err
	}
	dir, err := fstree.Resolve(ctx, tree, a.Path, true)
	if err != nil {
		return nil, err
	}
	entries, err := tree.ReadDir(ctx, dir)
	if err != nil {
		return nil, err
	}
	if len(entries) > maxFiles {
		return nil, fmt.Errorf("%d files, the limit is %d", len(entries), maxFiles)
	}
	var out []Attestation
	for _, e := range entries {
		b, err := readFile(ctx, tree, e.Path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
		one, err := unpack(a, path.Join(a.Path, e.Name()), b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
		out = append(out, one)
	}
	return out, nil
}

// statement is an in-toto statement whose predicate stays as it was written.
type statement struct {
	header
	Predicate json.RawMessage `json:"predicate"`
}

// unpack makes an attestation of a whole statement found in a bundle.
func unpack(bundle Attestation, name string, b []byte) (Attestation, error) {
	s, err := parse(b)
	if err != nil {
		return Attestation{}, err
	}
	if bundle.Type != "" && s.PredicateType != bundle.Type {
		return Attestation{}, fmt.Errorf("bundle entry %s does not match required predicate type %s", s.PredicateType, bundle.Type)
	}
	a := Attestation{
		Kind: gwpb.AttestationKind_InToto, Metadata: bundle.Metadata, Path: name, Type: s.PredicateType, Ref: bundle.Ref,
	}
	for _, subject := range s.Subject {
		raw := result.InTotoSubject{Kind: gwpb.InTotoSubjectKind_Raw, Name: subject.Name}
		for alg, hex := range subject.Digest {
			raw.Digest = append(raw.Digest, digest.NewDigestFromEncoded(digest.Algorithm(alg), hex))
		}
		a.Subjects = append(a.Subjects, raw)
	}
	if err := a.Check(); err != nil {
		return Attestation{}, err
	}
	a.Ref = nil
	a.Content = func(context.Context, []ocispecs.Descriptor) ([]byte, error) { return s.Predicate, nil }
	return a, nil
}

// parse reads one statement and nothing behind it.
func parse(b []byte) (s statement, err error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&s); err != nil {
		return s, fmt.Errorf("decode in-toto statement: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return s, errors.New("in-toto statement is not a single JSON object")
	}
	if s.PredicateType == "" {
		return s, errors.New("in-toto statement has no predicate type")
	}
	s.Predicate = orNull(s.Predicate)
	return s, nil
}
