package daemon

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	distref "github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	bksbom "github.com/moby/buildkit/frontend/attestations/sbom"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/result"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/daemon/sbom"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/exporter/attestation"
	"github.com/slipwaybuild/slipway/exporter/attrs"
	"github.com/slipwaybuild/slipway/frontend"
	"github.com/slipwaybuild/slipway/frontend/gateway"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// sbomFile is what the bill of materials is called in outputs of files.
const sbomFile = bksbom.CoreSBOMName + ".spdx.json"

// sbomOptions say who makes the bill of materials.
type sbomOptions struct {
	// generator is the image of a scanner; empty for the one that is built in.
	generator string
	params    map[string]string
	noCache   bool
	resolve   string
}

// parseSBOM reads the attributes of the attestation "sbom". The scanner that upstream names for those who name none is not what is
// meant here.
func parseSBOM(all, a map[string]string) (*sbomOptions, error) {
	o := &sbomOptions{params: map[string]string{}, resolve: all["image-resolve-mode"]}
	for k, v := range a {
		if k != "generator" {
			o.params[k] = v
		}
	}
	if v, ok := all["no-cache"]; ok && v == "" {
		o.noCache = true
	}
	if !named(all, "sbom", "generator") {
		return o, nil
	}
	ref, err := distref.ParseNormalizedNamed(a["generator"])
	if err != nil {
		return nil, fmt.Errorf("failed to parse sbom generator %q: %w", a["generator"], err)
	}
	o.generator = distref.TagNameOnly(ref).String()
	return o, nil
}

// forFrontend is a frontend's options without what the engine does itself: a frontend scans only with an image that was named.
func (attests) forFrontend(opts map[string]string) map[string]string {
	asked, err := parseAttests(opts)
	if err != nil || asked.sbom != nil && asked.sbom.generator != "" {
		return opts
	}
	return withoutAttest(opts, "sbom")
}

// addSBOM adds bills of materials unless the frontend brought one.
func (b *build) addSBOM(ctx context.Context, res *frontend.Result, in *exporter.Input) error {
	o := b.attests.sbom
	if o == nil || bksbom.HasSBOM(res) {
		return nil
	}
	var scanner bksbom.Scanner
	if o.generator != "" {
		var err error
		platform := b.engine.platform
		opt := sourceresolver.Opt{ImageOpt: &sourceresolver.ResolveImageOpt{ResolveMode: o.resolve, Platform: &platform}}
		// A scope names who asks, so that provenance tells of the scanner.
		scope := b.scoped(b, nil, nil)
		scanner, err = bksbom.CreateSBOMScanner(ctx, gateway.NewClient(scope, frontend.Request{}, gateway.Caps{}), o.generator, platform, opt, o.params)
		if err != nil {
			return err
		}
	}
	for i := range in.Platforms {
		p := &in.Platforms[i]
		ref, _ := res.FindRef(p.ID)
		own := referenceOf(ref)
		if own == nil {
			continue
		}
		a := b.builtinSBOM(p.Ref, p.ID, *in)
		if scanner != nil {
			var err error
			if a, err = b.runScanner(ctx, scanner, own, p.ID); err != nil {
				return err
			}
		}
		p.Attestations = append(p.Attestations, a)
	}
	return nil
}

// generatorError says what a scanner's image that cannot be had means.
func (a attests) generatorError(identifier string, err error) error {
	if err == nil || a.sbom == nil || a.sbom.generator == "" {
		return err
	}
	ref := strings.TrimPrefix(identifier, "docker-image://")
	if named, parseErr := distref.ParseNormalizedNamed(ref); parseErr != nil || distref.TagNameOnly(named).String() != a.sbom.generator {
		return err
	}
	return fmt.Errorf("the SBOM generator %s cannot be pulled (sbom without generator= uses the scanner that is built in): %w", ref, err)
}

// runScanner runs a scanner's image over a result, by the protocol of BuildKit's docs/attestations/sbom-protocol.md.
func (b *build) runScanner(ctx context.Context, scan bksbom.Scanner, of *reference, name string) (out attestation.Attestation, err error) {
	op, err := llb.NewDefinitionOp(of.def)
	if err != nil {
		return out, fmt.Errorf("scan %s: %w", name, err)
	}
	var opts []llb.ConstraintsOpt
	if b.attests.sbom.noCache {
		opts = append(opts, llb.IgnoreCache)
	}
	att, err := scan(ctx, name, llb.NewState(op), nil, opts...)
	if err != nil {
		return out, fmt.Errorf("scan %s: %w", name, err)
	}
	def, err := att.Ref.Marshal(ctx)
	if err != nil {
		return out, fmt.Errorf("scan %s: %w", name, err)
	}
	ref, err := b.Solve(ctx, def.ToPB(), false)
	if err != nil {
		return out, err
	}
	if own, ok := ref.(*reference); ok {
		own.aside = true
	}
	solved, err := result.ConvertAttestation(&att, func(*llb.State) (gwclient.Reference, error) {
		return &gateway.Reference{Reference: ref}, nil
	})
	if err != nil {
		return out, err
	}
	return b.attestation(ctx, *solved)
}

// builtinSBOM scans when an output wants to know, once for all outputs.
func (b *build) builtinSBOM(ref *layers.Ref, name string, in exporter.Input) attestation.Attestation {
	var mu sync.Mutex
	var done []byte
	return attestation.Attestation{
		Kind: gwpb.AttestationKind_InToto, Type: sbom.Type, Path: sbomFile,
		Metadata: map[string][]byte{
			result.AttestationReasonKey: []byte(result.AttestationReasonSBOM), result.AttestationSBOMCore: []byte(bksbom.CoreSBOMName),
		},
		Content: func(ctx context.Context, _ []ocispecs.Descriptor) (_ []byte, err error) {
			mu.Lock()
			defer mu.Unlock()
			if done == nil {
				done, err = b.scan(ctx, ref, name, in)
			}
			return done, err
		},
	}
}

func (b *build) scan(ctx context.Context, ref *layers.Ref, name string, in exporter.Input) (doc []byte, err error) {
	when := time.Now()
	if epoch, err := in.Epoch(attrs.Epoch{}, name); err == nil && epoch != nil {
		when = *epoch
	}
	err = b.step(ctx, "["+name+"] generating sbom", func(ctx context.Context, p progress.Writer) error {
		if err := b.engine.layers.Fetch(ctx, ref, in.Fetcher, p); err != nil {
			return err
		}
		tree, err := b.engine.layers.Tree(ctx, ref)
		if err != nil {
			return err
		}
		found, err := sbom.Scan(ctx, tree)
		if err != nil {
			return err
		}
		doc, err = found.SPDX(sbom.About{Name: name, Tool: Product + "-" + b.engine.version, Created: when})
		return err
	})
	return doc, err
}
