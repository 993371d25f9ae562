package gateway

import (
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	apicapspb "github.com/moby/buildkit/util/apicaps/pb"
)

// NewCaps makes the capability sets of what works: llb ids for ops, frontend ids for the bridge.
func NewCaps(llb, frontend []string) Caps {
	return Caps{LLB: pb.Caps.CapSet(enabled(llb)), Frontend: gwpb.Caps.CapSet(enabled(frontend))}
}

func enabled(ids []string) []*apicapspb.APICap {
	var list []*apicapspb.APICap
	for _, id := range ids {
		list = append(list, &apicapspb.APICap{ID: id, Enabled: true})
	}
	return list
}
