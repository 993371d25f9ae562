package daemon

import (
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/slipwaybuild/slipway/frontend"
	"github.com/slipwaybuild/slipway/frontend/gateway"
)

// encode names the references of a result, in the form that the client understands.
func (g *Gateway) encode(res *frontend.Result, arrays bool) (*gwpb.Result, error) {
	out := &gwpb.Result{Metadata: res.Metadata}
	var err error
	if out.Attestations, err = g.encodeAttestations(res); err != nil {
		return nil, err
	}
	if res.Refs == nil {
		ref, err := g.encodeRef(res.Ref)
		if err != nil {
			return nil, err
		}
		out.Result = &gwpb.Result_Ref{Ref: ref}
		if !arrays {
			out.Result = &gwpb.Result_RefDeprecated{RefDeprecated: ref.Id}
		}
		return out, nil
	}
	refs, ids := map[string]*gwpb.Ref{}, map[string]string{}
	for k, r := range res.Refs {
		ref, err := g.encodeRef(r)
		if err != nil {
			return nil, err
		}
		refs[k], ids[k] = ref, ref.Id
	}
	out.Result = &gwpb.Result_Refs{Refs: &gwpb.RefMap{Refs: refs}}
	if !arrays {
		out.Result = &gwpb.Result_RefsDeprecated{RefsDeprecated: &gwpb.RefMapDeprecated{Refs: ids}}
	}
	return out, nil
}

// encodeRef names a reference and tells its graph, on which clients build further. Nothing has no name.
func (g *Gateway) encodeRef(ref gwclient.Reference) (*gwpb.Ref, error) {
	r, ok := ref.(*gateway.Reference)
	if !ok || r == nil {
		return &gwpb.Ref{}, nil
	}
	id, err := g.refs.keep(r)
	return &gwpb.Ref{Id: id, Def: r.Definition()}, err
}

// decode is the way back. A result may hold none but the references of this build.
func (g *Gateway) decode(in *gwpb.Result) (*frontend.Result, error) {
	res := gwclient.NewResult()
	if in.Metadata != nil {
		res.Metadata = in.Metadata
	}
	if err := g.decodeAttestations(res, in.Attestations); err != nil {
		return nil, err
	}
	ids, single, err := resultIDs(in)
	if err != nil {
		return nil, err
	}
	for k, id := range ids {
		ref, err := g.refOf(id)
		if err != nil {
			return nil, err
		}
		if single {
			res.SetRef(ref)
			continue
		}
		res.AddRef(k, ref)
	}
	return res, nil
}

// resultIDs reads any of the forms that clients have sent over the years.
func resultIDs(in *gwpb.Result) (ids map[string]string, single bool, err error) {
	switch r := in.Result.(type) {
	case nil:
		return nil, true, nil
	case *gwpb.Result_RefDeprecated:
		return map[string]string{"": r.RefDeprecated}, true, nil
	case *gwpb.Result_RefsDeprecated:
		return r.RefsDeprecated.GetRefs(), false, nil
	case *gwpb.Result_Ref:
		return map[string]string{"": r.Ref.GetId()}, true, nil
	case *gwpb.Result_Refs:
		ids = map[string]string{}
		for k, ref := range r.Refs.GetRefs() {
			ids[k] = ref.GetId()
		}
		return ids, false, nil
	}
	return nil, false, invalid("a result of an unknown form")
}
