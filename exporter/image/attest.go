package image

import (
	"slices"

	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/exporter/attestation"
	"github.com/slipwaybuild/slipway/exporter/manifest"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// attested is the input with the attestations that this output can have. Docker's own clients name an image by its config, which an
// index has not: they get none, and are told so if it was not them who added it to every build.
func (x *image) attested(in exporter.Input, p progress.Writer) exporter.Input {
	if !x.moby || x.manifest.Attest.Store == manifest.AttestReferrers {
		return in
	}
	in.Platforms = slices.Clone(in.Platforms)
	asked := false
	for i := range in.Platforms {
		asked = asked || len(attestation.Inline(in.Platforms[i].Attestations, false)) > 0
		in.Platforms[i].Attestations = nil
	}
	if asked {
		p.Warn(progress.Warning{Short: []byte("attestations are not kept: an image in Docker's own form has no place for them")})
	}
	return in
}

// what names a piece of content for people.
func (x *image) what(img *manifest.Image, b manifest.Blob) string {
	about := slices.ContainsFunc(img.Referrers, func(r manifest.Referrer) bool { return r.Desc.Digest == b.Desc.Digest })
	for _, d := range img.Attestations {
		about = about || d.Digest == b.Desc.Digest
	}
	config := slices.ContainsFunc(img.Singles, func(s manifest.Single) bool { return s.Config.Digest == b.Desc.Digest })
	switch {
	case config && x.moby:
		return "writing image "
	case config:
		return "exporting config "
	case about:
		return "exporting attestation manifest "
	case b.Children == nil:
		return "exporting attestation "
	case img.Index && b.Desc.Digest == img.Desc.Digest:
		return "exporting manifest list "
	}
	return "exporting manifest "
}
