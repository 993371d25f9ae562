package daemon

import (
	"context"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// ResolveImageConfig resolves an image to a digest and its config. Clients that know ResolveSourceMeta do not use it.
func (g *Gateway) ResolveImageConfig(ctx context.Context, r *gwpb.ResolveImageConfigRequest) (*gwpb.ResolveImageConfigResponse, error) {
	return call(ctx, g, func(ctx context.Context) (*gwpb.ResolveImageConfigResponse, error) {
		opt := sourceresolver.Opt{LogName: r.LogName, SourcePolicies: r.SourcePolicies}
		switch t := sourceresolver.ResolverType(r.ResolverType); t {
		case sourceresolver.ResolverTypeRegistry:
			opt.ImageOpt = &sourceresolver.ResolveImageOpt{Platform: platformFrom(r.Platform), ResolveMode: r.ResolveMode}
		case sourceresolver.ResolverTypeOCILayout:
			opt.OCILayoutOpt = &sourceresolver.ResolveOCILayoutOpt{
				Platform: platformFrom(r.Platform),
				Store:    sourceresolver.ResolveImageConfigOptStore{SessionID: r.SessionID, StoreID: r.StoreID},
			}
		default:
			return nil, invalid("an unknown type of image resolver")
		}
		ref, dgst, config, err := g.client.ResolveImageConfig(ctx, r.Ref, opt)
		if err != nil {
			return nil, err
		}
		return &gwpb.ResolveImageConfigResponse{Ref: ref, Digest: string(dgst), Config: config}, nil
	})
}

// ResolveSourceMeta asks a source what it means now.
func (g *Gateway) ResolveSourceMeta(ctx context.Context, r *gwpb.ResolveSourceMetaRequest) (*gwpb.ResolveSourceMetaResponse, error) {
	return call(ctx, g, func(ctx context.Context) (*gwpb.ResolveSourceMetaResponse, error) {
		opt, err := resolveOptions(r)
		if err != nil {
			return nil, err
		}
		res, err := g.client.ResolveSourceMetadata(ctx, r.Source, opt)
		if err != nil {
			return nil, err
		}
		return encodeMeta(res), nil
	})
}

func resolveOptions(r *gwpb.ResolveSourceMetaRequest) (sourceresolver.Opt, error) {
	platform := platformFrom(r.Platform)
	opt := sourceresolver.Opt{
		LogName: r.LogName, SourcePolicies: r.SourcePolicies,
		ImageOpt:     &sourceresolver.ResolveImageOpt{Platform: platform, ResolveMode: r.ResolveMode, NoConfig: r.Image.GetNoConfig()},
		OCILayoutOpt: &sourceresolver.ResolveOCILayoutOpt{Platform: platform},
		GitOpt:       &sourceresolver.ResolveGitOpt{ReturnObject: r.Git.GetReturnObject()},
	}
	switch {
	case r.Source == nil:
		return opt, invalid("no source to resolve")
	case r.HTTP.GetChecksumRequest() != nil:
		sum := r.HTTP.ChecksumRequest
		// The numbers are the same.
		opt.HTTPOpt = &sourceresolver.ResolveHTTPOpt{ChecksumReq: &sourceresolver.ResolveHTTPChecksumRequest{
			Algo: sourceresolver.ResolveHTTPChecksumAlgo(sum.Algo), Suffix: sum.Suffix,
		}}
	}
	opt.ImageOpt.AttestationChain, opt.ImageOpt.ResolveAttestations = r.Image.GetAttestationChain(), r.Image.GetResolveAttestations()
	return opt, nil
}

func platformFrom(p *pb.Platform) *ocispecs.Platform {
	if p == nil {
		return nil
	}
	spec := p.Spec()
	return &spec
}

func encodeMeta(m *sourceresolver.MetaResponse) *gwpb.ResolveSourceMetaResponse {
	res := &gwpb.ResolveSourceMetaResponse{Source: m.Op}
	if i := m.Image; i != nil {
		res.Image = &gwpb.ResolveSourceImageResponse{Digest: string(i.Digest), Config: i.Config, AttestationChain: encodeChain(i.AttestationChain)}
	}
	if i := m.Git; i != nil {
		res.Git = &gwpb.ResolveSourceGitResponse{
			Checksum: i.Checksum, Ref: i.Ref, CommitChecksum: i.CommitChecksum, CommitObject: i.CommitObject, TagObject: i.TagObject,
		}
	}
	if i := m.HTTP; i != nil {
		res.HTTP = &gwpb.ResolveSourceHTTPResponse{Checksum: string(i.Digest), Filename: i.Filename}
		if c := i.ChecksumResponse; c != nil {
			res.HTTP.ChecksumResponse = &gwpb.ChecksumResponse{Digest: c.Digest, Suffix: c.Suffix}
		}
		if i.LastModified != nil {
			res.HTTP.LastModified = timestamppb.New(*i.LastModified)
		}
	}
	return res
}

func encodeChain(c *sourceresolver.AttestationChain) *gwpb.AttestationChain {
	if c == nil {
		return nil
	}
	out := &gwpb.AttestationChain{
		Root: string(c.Root), ImageManifest: string(c.ImageManifest), AttestationManifest: string(c.AttestationManifest),
		Blobs: map[string]*gwpb.Blob{},
	}
	for _, d := range c.SignatureManifests {
		out.SignatureManifests = append(out.SignatureManifests, string(d))
	}
	for d, b := range c.Blobs {
		out.Blobs[string(d)] = &gwpb.Blob{Descriptor_: encodeDescriptor(b.Descriptor), Data: b.Data}
	}
	return out
}

func encodeDescriptor(d ocispecs.Descriptor) *gwpb.Descriptor {
	return &gwpb.Descriptor{MediaType: d.MediaType, Digest: string(d.Digest), Size: d.Size, Annotations: d.Annotations}
}
