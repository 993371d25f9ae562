package daemon

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/attestations"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/result"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/daemon/provenance"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/exporter/attestation"
	"github.com/slipwaybuild/slipway/frontend"
	"github.com/tonistiigi/go-csvvalue"
)

// attests are the attestations that a client asks for. The zero value asks for none.
type attests struct {
	provenance *provenance.Options
	sbom       *sbomOptions
}

// parseAttests reads "attest:…" and the build arguments that mean the same.
func parseAttests(a map[string]string) (out attests, err error) {
	asked, err := attestations.Parse(attestations.Filter(a))
	if err != nil {
		return out, fmt.Errorf("%w: %w", ErrInvalidRequest, err)
	}
	if p, ok := asked[attestations.KeyTypeProvenance]; ok && !disabled(p) {
		o, err := provenance.ParseOptions(p)
		if err != nil {
			return out, fmt.Errorf("%w: %w", ErrInvalidRequest, err)
		}
		out.provenance = &o
	}
	if s, ok := asked[attestations.KeyTypeSbom]; ok && !disabled(s) {
		if out.sbom, err = parseSBOM(a, s); err != nil {
			return out, fmt.Errorf("%w: %w", ErrInvalidRequest, err)
		}
	}
	return out, nil
}

func disabled(a map[string]string) bool {
	v, ok := a["disabled"]
	if !ok {
		return false
	}
	b, err := strconv.ParseBool(v)
	return v == "" || err == nil && b
}

// named tells whether the value of an attestation names a field itself: the parser fills in upstream's defaults.
func named(a map[string]string, kind, field string) bool {
	for k, v := range a {
		key, ok := strings.CutPrefix(k, "attest:")
		if !ok {
			key, ok = strings.CutPrefix(k, "build-arg:BUILDKIT_ATTEST_")
		}
		if !ok || !strings.EqualFold(key, kind) {
			continue
		}
		fields, err := csvvalue.Fields(v, nil)
		for _, f := range fields {
			if name, _, _ := strings.Cut(f, "="); err == nil && name == field {
				return true
			}
		}
	}
	return false
}

// withoutAttest is a frontend's options without one kind of attestation.
func withoutAttest(opts map[string]string, kind string) map[string]string {
	opts = maps.Clone(opts)
	maps.DeleteFunc(opts, func(k, _ string) bool {
		return strings.EqualFold(k, "attest:"+kind) || strings.EqualFold(k, "build-arg:BUILDKIT_ATTEST_"+kind)
	})
	return opts
}

// attest puts on each platform's result what frontends said of it and what the client asked for.
func (b *build) attest(ctx context.Context, res *frontend.Result, in *exporter.Input) error {
	for i := range in.Platforms {
		p := &in.Platforms[i]
		for _, a := range res.Attestations[p.ID] {
			own, err := b.attestation(ctx, a)
			if err != nil {
				return fmt.Errorf("result of the frontend: %w", err)
			}
			p.Attestations = append(p.Attestations, own)
		}
	}
	if err := b.addSBOM(ctx, res, in); err != nil {
		return err
	}
	if b.attests.provenance != nil {
		return b.addProvenance(res, in, *b.attests.provenance)
	}
	return nil
}

// attestation solves what a frontend's attestation refers to.
func (b *build) attestation(ctx context.Context, a result.Attestation[gwclient.Reference]) (attestation.Attestation, error) {
	out := attestation.Attestation{
		Kind: a.Kind, Metadata: a.Metadata, Path: a.Path, Type: a.InToto.PredicateType, Subjects: a.InToto.Subjects,
	}
	if a.ContentFunc != nil {
		out.Content = func(ctx context.Context, _ []ocispecs.Descriptor) ([]byte, error) { return a.ContentFunc(ctx) }
	}
	if a.Ref != nil {
		stack, err := b.stackOf(ctx, a.Ref)
		if err != nil {
			return out, err
		}
		out.Ref = stack
	}
	return out, out.Check()
}

func (b *build) addProvenance(res *frontend.Result, in *exporter.Input, o provenance.Options) error {
	for i := range in.Platforms {
		p := &in.Platforms[i]
		if ref, _ := res.FindRef(p.ID); referenceOf(ref) == nil {
			continue // nothing came from nowhere
		}
		c, _, err := b.capture(res, p.ID)
		if err != nil {
			return err
		}
		if err := c.Complete(o); err != nil {
			return err
		}
		id := p.ID
		p.Attestations = append(p.Attestations, attestation.Attestation{
			Kind: gwpb.AttestationKind_InToto,
			Metadata: map[string][]byte{
				result.AttestationReasonKey:     []byte(result.AttestationReasonProvenance),
				result.AttestationInlineOnlyKey: []byte(strconv.FormatBool(o.InlineOnly)),
			},
			Path: o.Filename, Type: o.Type(),
			Content: func(ctx context.Context, layers []ocispecs.Descriptor) ([]byte, error) {
				data, _, err := b.provenance(ctx, res, id, o, layers)
				return data, err
			},
		})
	}
	return nil
}
