// Package attestation turns what a build says of its results into in-toto statements (in-toto Attestation Framework v1), and reads the
// statements that scanners leave in a file system.
package attestation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/result"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// Attestation is something said of the result for a platform. It belongs to the build, like the result.
type Attestation struct {
	// Kind is InToto for one predicate, or Bundle for a directory of whole statements.
	Kind gwpb.AttestationKind
	// Metadata says why it is there, with keys as BuildKit's package result names them.
	Metadata map[string][]byte
	// Ref and Path say where the predicate or the directory is. Without a Ref, Path is the name of the file in outputs of files.
	Ref  *layers.Ref
	Path string
	// Content gives the predicate where there is no Ref. image holds the layers of the result as the output has them, for those
	// predicates that tell them; nil if it has none.
	Content func(ctx context.Context, image []ocispecs.Descriptor) ([]byte, error)
	// Type is the predicate's; in a bundle, what all must have, or empty.
	Type string
	// Subjects are what is spoken of; none is the result itself.
	Subjects []result.InTotoSubject
}

// InlineOnly tells whether it goes with images only.
func (a Attestation) InlineOnly() bool {
	b, err := strconv.ParseBool(string(a.Metadata[result.AttestationInlineOnlyKey]))
	return err == nil && b
}

// provenance is how the types begin of what only the engine may say.
const provenance = "https://slsa.dev/provenance/"

// Check refuses what makes no sense, and what a frontend may not say.
func (a Attestation) Check() error {
	switch {
	case a.Kind != gwpb.AttestationKind_InToto && a.Kind != gwpb.AttestationKind_Bundle:
		return fmt.Errorf("attestation of unknown kind %d", a.Kind)
	case a.Kind == gwpb.AttestationKind_InToto && a.Path == "":
		return errors.New("attestation does not have set path")
	case a.Ref == nil && a.Content == nil:
		return errors.New("attestation does not have available content")
	case a.Kind == gwpb.AttestationKind_Bundle && a.Ref == nil:
		return errors.New("no ref provided for attestation bundle")
	case a.Ref != nil && strings.HasPrefix(a.Type, provenance):
		return errors.New("frontend may not set provenance attestations")
	}
	return nil
}

// Inline picks what goes with an image: all; or with files: what is not for images only.
func Inline(list []Attestation, image bool) []Attestation {
	if image {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), Attestation.InlineOnly)
}

// coreFirst puts the main bill of materials before those of contexts and stages.
func coreFirst(list []Attestation) {
	slices.SortStableFunc(list, func(a, b Attestation) int { return cmp.Compare(rank(a), rank(b)) })
}

func rank(a Attestation) int {
	name, ok := a.Metadata[result.AttestationSBOMCore]
	stem, _, _ := strings.Cut(a.Path[strings.LastIndexByte(a.Path, '/')+1:], ".")
	if ok && stem == string(name) {
		return 0
	}
	return 1
}
