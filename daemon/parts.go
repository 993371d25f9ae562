package daemon

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes"
	distref "github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/daemon/config"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/exporter/archive"
	"github.com/slipwaybuild/slipway/exporter/cacheonly"
	exportimage "github.com/slipwaybuild/slipway/exporter/image"
	exportlocal "github.com/slipwaybuild/slipway/exporter/local"
	exporttar "github.com/slipwaybuild/slipway/exporter/tar"
	"github.com/slipwaybuild/slipway/frontend"
	"github.com/slipwaybuild/slipway/frontend/dockerfile"
	"github.com/slipwaybuild/slipway/frontend/gateway"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver/ops"
	"github.com/slipwaybuild/slipway/solver/source"
	"github.com/slipwaybuild/slipway/solver/source/blob"
	"github.com/slipwaybuild/slipway/solver/source/git"
	"github.com/slipwaybuild/slipway/solver/source/http"
	"github.com/slipwaybuild/slipway/solver/source/image"
	"github.com/slipwaybuild/slipway/solver/source/local"
	"github.com/slipwaybuild/slipway/solver/source/oci"
	"github.com/slipwaybuild/slipway/solver/source/registry"
)

// openSources makes the sources, and the ops that read them.
func (e *Engine) openSources(root string) (err error) {
	dir := filepath.Join(root, "sources")
	images := image.New(image.Options{Images: e.images, Layers: e.layers, Registry: e.registry, Logger: e.log})
	e.opened("image source", images.Close)
	layouts := oci.New(oci.Options{Images: e.images, Layers: e.layers, Logger: e.log})
	locals, err := local.New(local.Options{Store: e.layers, Sessions: e.sessions, Host: e.sameHost, Root: filepath.Join(dir, "local"), Logger: e.log})
	if err != nil {
		return err
	}
	e.opened("local source", withTimeout(locals.Close))
	repos, err := git.New(git.Options{Store: e.layers, Sessions: e.sessions, Root: filepath.Join(dir, "git"), Logger: e.log})
	if err != nil {
		return err
	}
	urls, err := http.New(http.Options{Store: e.layers, Sessions: e.sessions, Root: filepath.Join(dir, "http"), UserAgent: e.userAgent, Logger: e.log})
	if err != nil {
		return err
	}
	blobs, err := blob.New(blob.Options{Images: e.images, Layers: e.layers, Registry: e.registry, Root: filepath.Join(dir, "blob"), Logger: e.log})
	if err != nil {
		return err
	}
	e.fetcher = e.caches.table.Fetchers(images.Fetcher)
	e.resolvers = map[string]metaResolver{
		"docker-image": e.resolveImage(images),
		"oci-layout":   e.resolveLayout(layouts),
		"git":          resolveGit(repos),
		"http":         resolveHTTP(urls),
		"https":        resolveHTTP(urls),
	}
	e.factory, err = ops.New(ops.Options{
		Store: e.layers, Executor: e.executor, Containers: e.executor, Devices: e.devices, Sources: []source.Source{images, layouts, locals, repos, urls, blobs},
		Fetcher: e.fetcher, CacheMounts: &e.mounts, DefaultPlatform: e.platform, Logger: e.log,
	})
	return err
}

func (e *Engine) resolveImage(images *image.Source) metaResolver {
	return func(ctx context.Context, env source.Env, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
		o := opt.ImageOpt
		if o == nil {
			o = &sourceresolver.ResolveImageOpt{}
		}
		ref := strings.TrimPrefix(op.Identifier, "docker-image://")
		c, err := images.ResolveConfig(ctx, env, ref, e.platformOf(o.Platform), image.Mode(o.ResolveMode))
		if err != nil {
			return nil, err
		}
		res := &sourceresolver.ResolveImageResponse{Digest: c.Digest, Config: c.JSON}
		if o.NoConfig {
			res.Config = nil
		}
		if o.AttestationChain || len(o.ResolveAttestations) > 0 {
			// Of what was just found, should the tag move meanwhile.
			chain, err := images.ResolveAttestations(ctx, env, pinned(c.Ref, c.Digest), e.platformOf(o.Platform), image.Mode(o.ResolveMode), o.ResolveAttestations)
			if err != nil {
				return nil, err
			}
			res.AttestationChain = chainOf(chain)
		}
		named := op.CloneVT()
		named.Identifier = "docker-image://" + c.Ref
		return &sourceresolver.MetaResponse{Op: named, Image: res}, nil
	}
}

func chainOf(c *image.Chain) *sourceresolver.AttestationChain {
	if c == nil {
		return nil
	}
	out := &sourceresolver.AttestationChain{
		Root: c.Root, ImageManifest: c.ImageManifest, AttestationManifest: c.AttestationManifest, SignatureManifests: c.Signatures,
		Blobs: map[digest.Digest]sourceresolver.Blob{},
	}
	for d, b := range c.Blobs {
		out.Blobs[d] = sourceresolver.Blob{Descriptor: b.Descriptor, Data: b.Data}
	}
	return out
}

func (e *Engine) resolveLayout(layouts *oci.Source) metaResolver {
	return func(ctx context.Context, env source.Env, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
		o := opt.OCILayoutOpt
		if o == nil {
			o = &sourceresolver.ResolveOCILayoutOpt{}
		}
		store := o.Store.StoreID
		if store == "" {
			store = op.Attrs[pb.AttrOCILayoutStoreID]
		}
		c, err := layouts.ResolveConfig(ctx, env, strings.TrimPrefix(op.Identifier, "oci-layout://"), store, e.platformOf(o.Platform))
		if err != nil {
			return nil, err
		}
		return &sourceresolver.MetaResponse{
			Op:    op,
			Image: &sourceresolver.ResolveImageResponse{Digest: c.Digest, Config: c.JSON},
		}, nil
	}
}

// pinned is a reference to exactly what was resolved.
func pinned(ref string, d digest.Digest) string {
	if named, err := distref.ParseNormalizedNamed(ref); err == nil {
		if _, ok := named.(distref.Digested); !ok {
			if canonical, err := distref.WithDigest(named, d); err == nil {
				return canonical.String()
			}
		}
	}
	return ref
}

func resolveGit(repos *git.Source) metaResolver {
	return func(ctx context.Context, env source.Env, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
		objects := opt.GitOpt != nil && opt.GitOpt.ReturnObject
		m, err := repos.Resolve(ctx, env, source.Request{Identifier: op.Identifier, Attrs: op.Attrs}, objects)
		if err != nil {
			return nil, err
		}
		return &sourceresolver.MetaResponse{Op: op, Git: &sourceresolver.ResolveGitResponse{
			Checksum: m.Checksum, Ref: m.Ref, CommitChecksum: m.CommitChecksum, CommitObject: m.CommitObject, TagObject: m.TagObject,
		}}, nil
	}
}

func resolveHTTP(urls *http.Source) metaResolver {
	return func(ctx context.Context, env source.Env, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
		sum, err := sumOf(opt.HTTPOpt)
		if err != nil {
			return nil, err
		}
		m, err := urls.Resolve(ctx, env, source.Request{Identifier: op.Identifier, Attrs: op.Attrs}, sum)
		if err != nil {
			return nil, err
		}
		res := &sourceresolver.ResolveHTTPResponse{Digest: m.Digest, Filename: m.Filename}
		if sum != nil {
			res.ChecksumResponse = &sourceresolver.ResolveHTTPChecksumResponse{Digest: m.Sum.String(), Suffix: sum.Suffix}
		}
		if !m.LastModified.IsZero() {
			res.LastModified = &m.LastModified
		}
		return &sourceresolver.MetaResponse{Op: op, HTTP: res}, nil
	}
}

// sumOf reads the request for a digest of a file and more; nil if there is none.
func sumOf(o *sourceresolver.ResolveHTTPOpt) (*http.Sum, error) {
	if o == nil || o.ChecksumReq == nil {
		return nil, nil
	}
	s := &http.Sum{Suffix: o.ChecksumReq.Suffix}
	switch a := o.ChecksumReq.Algo; a {
	case sourceresolver.ResolveHTTPChecksumAlgoSHA256:
		s.Algorithm = digest.SHA256
	case sourceresolver.ResolveHTTPChecksumAlgoSHA384:
		s.Algorithm = digest.SHA384
	case sourceresolver.ResolveHTTPChecksumAlgoSHA512:
		s.Algorithm = digest.SHA512
	default:
		return nil, fmt.Errorf("%w: unsupported checksum algorithm %d", ErrInvalidRequest, a)
	}
	return s, nil
}

// frontendCaps are what the bridge can do beyond the least that every frontend needs.
func frontendCaps() []string {
	return []string{
		string(gwpb.CapSolveBase), string(gwpb.CapResolveImage), string(gwpb.CapResolveImageResolveMode),
		string(gwpb.CapReadFile), string(gwpb.CapReturnResult), string(gwpb.CapReturnMap), string(gwpb.CapReadDir),
		string(gwpb.CapStatFile), string(gwpb.CapProtoRefArray), string(gwpb.CapReferenceOutput), string(gwpb.CapFrontendInputs),
		string(gwpb.CapGatewaySolveMetadata), string(gwpb.CapFrontendCaps), string(gwpb.CapGatewayEvaluateSolve),
		string(gwpb.CapGatewayEvaluate), string(gwpb.CapGatewayWarnings), string(gwpb.CapSourceMetaResolver),
		string(gwpb.CapAttestations),
		string(gwpb.CapSourceMetaResolverImageAttestations), string(gwpb.CapSourceMetaResolverHTTPChecksumRequest),
		string(gwpb.CapGatewayExec), string(gwpb.CapGatewayExecExtraHosts), string(gwpb.CapGatewayExecSecretEnv),
		string(gwpb.CapGatewayExecSignals), string(gwpb.CapGatewayExecFilesystem),
		string(gwpb.CapImportCaches),
	}
}

func (e *Engine) openFrontends(c config.Frontends) (err error) {
	caps := gateway.NewCaps(ops.Caps(), frontendCaps())
	df := dockerfile.New(caps)
	e.frontends = map[string]frontend.Frontend{}
	if on(c.Dockerfile.Enabled) {
		e.frontends[dockerfile.Name] = df
	}
	if on(c.Gateway.Enabled) {
		e.frontends[gateway.Name], err = gateway.NewFrontend(gateway.Options{
			Dockerfile: df, Allowed: c.Gateway.AllowedRepositories, Serve: e.serve, Caps: caps,
		})
	}
	return err
}

func on(enabled *bool) bool { return enabled == nil || *enabled }

func (e *Engine) openExporters() {
	e.exporters = exporter.NewRegistry()
	img := exportimage.Options{Layers: e.layers, Images: e.images, Registry: func(s func() *session.Group, insecure bool) remotes.Resolver {
		return e.registry.Resolver(registry.ResolverOptions{Sessions: s, Insecure: insecure})
	}}
	e.exporters.Register(exportimage.New(img, false), exportimage.Type)
	e.exporters.Register(exportimage.New(img, true), exportimage.TypeMoby)
	e.exporters.Register(archive.New(e.layers, e.images, archive.TypeOCI), archive.TypeOCI)
	e.exporters.Register(archive.New(e.layers, e.images, archive.TypeDocker), archive.TypeDocker)
	e.exporters.Register(exportlocal.New(e.layers), exportlocal.Type)
	e.exporters.Register(exporttar.New(e.layers), exporttar.Type)
	e.exporters.Register(cacheonly.New(), cacheonly.Type)
}

// registryHosts converts the configuration.
func registryHosts(hosts map[string]config.Registry) map[string]registry.HostConfig {
	out := map[string]registry.HostConfig{}
	for name, h := range hosts {
		c := registry.HostConfig{Mirrors: h.Mirrors, HTTP: h.PlainHTTP, Insecure: h.Insecure, CA: h.RootCAs, TLSConfigDirs: h.TLSConfigDir}
		for _, k := range h.KeyPairs {
			c.KeyPairs = append(c.KeyPairs, registry.KeyPair{Key: k.Key, Cert: k.Certificate})
		}
		out[name] = c
	}
	return out
}

// connections is how many connections to one registry may be open.
func connections(c config.System) int {
	if c.MaxRegistryConcurrency == nil {
		return 0
	}
	return *c.MaxRegistryConcurrency
}
