package daemon

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/platforms"
	distref "github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/solver/pb"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/daemon/provenance"
	"github.com/slipwaybuild/slipway/frontend"
)

// scope is a build's bridge as one call of a frontend sees it, or a client that drives the build: it remembers for provenance who asked
// for what.
type scope struct {
	frontend.Bridge // the build's, or one under more policies
	build           *build
	parent          *scope              // nil for what the client asked
	request         *provenance.Request // of a client that drives, without a frontend; nil for what speaks of the result

	mu     sync.Mutex
	images []provenance.Image // that the frontend asked the meaning of
}

var _ frontend.Bridge = (*scope)(nil)

// scoped opens a scope over a bridge. It lives as long as the build.
func (b *build) scoped(bridge frontend.Bridge, parent *scope, r *provenance.Request) *scope {
	if parent != nil && parent.request == nil {
		parent = nil
	}
	s := &scope{Bridge: bridge, build: b, parent: parent, request: r}
	b.scopes.add(s)
	return s
}

// buildBehind is the build that a bridge is of; nil for a bridge of another kind.
func buildBehind(b frontend.Bridge) *build {
	switch b := b.(type) {
	case *build:
		return b
	case *restricted:
		return b.build
	case *scope:
		return b.build
	}
	return nil
}

// root is what the client asked for, if that was another request.
func (s *scope) root() *provenance.Request {
	if s.parent == nil {
		return nil
	}
	for s.parent != nil {
		s = s.parent
	}
	return s.request
}

// Solve loads a definition for the frontend.
func (s *scope) Solve(ctx context.Context, def *pb.Definition, evaluate bool) (frontend.Reference, error) {
	ref, err := s.Bridge.Solve(ctx, def, evaluate)
	if own, ok := ref.(*reference); ok && err == nil {
		own.scope = s
	}
	return ref, err
}

// Frontend runs another frontend for this one.
func (s *scope) Frontend(ctx context.Context, name string, r frontend.Request) (*frontend.Result, error) {
	return s.build.runFrontendFor(ctx, s.Bridge, s, name, r)
}

// Restrict adds policies.
func (s *scope) Restrict(policies []*spb.Policy) (frontend.Bridge, error) {
	inner, err := s.Bridge.Restrict(policies)
	if err != nil {
		return nil, err
	}
	return s.build.scoped(inner, s.parent, s.request), nil
}

// ResolveSource asks a source what it means now, and remembers images by the names the frontend knows them by.
func (s *scope) ResolveSource(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	res, err := s.Bridge.ResolveSource(ctx, op, opt)
	if err != nil || res.Image == nil {
		return res, s.build.attests.generatorError(op.GetIdentifier(), err)
	}
	scheme, ref, _ := strings.Cut(res.Op.GetIdentifier(), "://")
	i := provenance.Image{Ref: unpinned(ref, op.Identifier), Digest: res.Image.Digest, Layout: scheme != "docker-image", Platform: platformResolved(opt)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.images = append(s.images, i)
	return res, nil
}

// unpinned takes the digest off a reference that was asked for without one.
func unpinned(ref, asked string) string {
	if strings.Contains(asked, "@") {
		return ref
	}
	named, err := distref.ParseNormalizedNamed(ref)
	if err != nil {
		return ref
	}
	tagged, ok := named.(distref.Tagged)
	if !ok {
		return distref.TagNameOnly(distref.TrimNamed(named)).String()
	}
	return named.Name() + ":" + tagged.Tag()
}

func platformResolved(opt sourceresolver.Opt) *ocispecs.Platform {
	switch {
	case opt.ImageOpt != nil && opt.ImageOpt.Platform != nil:
		return opt.ImageOpt.Platform
	case opt.OCILayoutOpt != nil && opt.OCILayoutOpt.Platform != nil:
		return opt.OCILayoutOpt.Platform
	}
	p := platforms.Normalize(platforms.DefaultSpec())
	return &p
}

// scopes are those of a build. The zero value is ready.
type scopes struct {
	mu   sync.Mutex
	list []*scope
}

func (s *scopes) add(one *scope) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, one)
}

// images are all that frontends asked the meaning of, for a platform: where one was asked for on every platform of the result, only
// the one of this platform counts.
func (s *scopes) images(platform ocispecs.Platform, all []ocispecs.Platform) []provenance.Image {
	s.mu.Lock()
	list := slices.Clone(s.list)
	s.mu.Unlock()
	var found []provenance.Image
	for _, one := range list {
		one.mu.Lock()
		found = append(found, one.images...)
		one.mu.Unlock()
	}
	everywhere := func(ref string) bool {
		return !slices.ContainsFunc(all, func(p ocispecs.Platform) bool {
			m := platforms.OnlyStrict(p)
			return !slices.ContainsFunc(found, func(i provenance.Image) bool { return i.Ref == ref && m.Match(*i.Platform) })
		})
	}
	own := platforms.OnlyStrict(platform)
	return slices.DeleteFunc(found, func(i provenance.Image) bool {
		return len(all) > 1 && !own.Match(*i.Platform) && everywhere(i.Ref)
	})
}
