package daemon

import (
	"fmt"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/slipwaybuild/slipway/frontend"
)

// maxAttestations bounds those of one result. Frontends give a handful per platform.
const maxAttestations = 10_000

// encodeAttestations names the references of attestations, in the form that the client understands.
func (g *Gateway) encodeAttestations(res *frontend.Result) (map[string]*gwpb.Attestations, error) {
	if len(res.Attestations) == 0 {
		return nil, nil
	}
	out := map[string]*gwpb.Attestations{}
	for platform, list := range res.Attestations {
		out[platform] = &gwpb.Attestations{}
		for _, a := range list {
			one, err := gwclient.AttestationToPB(&a)
			if err != nil {
				return nil, fmt.Errorf("attestation %s: %w", a.Path, err)
			}
			if one.Ref, err = g.encodeRef(a.Ref); err != nil {
				return nil, err
			}
			out[platform].Attestation = append(out[platform].Attestation, one)
		}
	}
	return out, nil
}

// decodeAttestations is the way back. Nothing is read yet.
func (g *Gateway) decodeAttestations(res *frontend.Result, in map[string]*gwpb.Attestations) error {
	n := 0
	for platform, list := range in {
		if n += len(list.GetAttestation()); n > maxAttestations {
			return invalid(fmt.Sprintf("more than %d attestations", maxAttestations))
		}
		for _, one := range list.GetAttestation() {
			a, err := gwclient.AttestationFromPB[gwclient.Reference](one)
			if err != nil {
				return invalid(err.Error())
			}
			if id := one.GetRef().GetId(); id != "" {
				if a.Ref, err = g.refOf(id); err != nil {
					return err
				}
			}
			res.AddAttestation(platform, *a)
		}
	}
	return nil
}
