package manifest

import (
	"fmt"
	"slices"

	"github.com/moby/buildkit/solver/errdefs"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/exporter/compression"
)

// At returns the options of an output of a type as the input's version of BuildKit's behaviour has them: before 0.31, images were of
// Docker's types unless they had attestations, which were no artifacts; an output of type "oci" has been of OCI's types ever since.
// What a version did not have is an [errdefs.UnsupportedCompatibilityFeatureError].
func (o Options) At(in exporter.Input, typ string) (Options, error) {
	version := in.Compat
	if version == 0 || version >= exporter.Compat031 {
		return o, nil
	}
	if version == exporter.Compat013 && o.Compression.Type == compression.Zstd {
		feature := fmt.Sprintf("%s exporter compression=%s", typ, o.Compression.Type)
		return o, errdefs.NewUnsupportedCompatibilityFeatureError(version, feature)
	}
	if !o.typesChosen {
		o.OCI = typ == "oci" || slices.ContainsFunc(in.Platforms, func(p exporter.Platform) bool { return len(p.Attestations) > 0 })
	}
	if !o.artifactChosen {
		o.Attest.Artifact = false
	}
	return o, o.check()
}

// check finds options that contradict each other.
func (o Options) check() error {
	if t := o.Compression.Type; t == compression.EStargz && !o.OCI {
		return fmt.Errorf(`exporter option "compression=%s" conflicts with "oci-mediatypes=false"`, t)
	}
	return nil
}
