// Package frontend turns a request into build graphs. What a frontend needs of the engine it asks its [Bridge].
package frontend

import (
	"context"
	"io"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
	digest "github.com/opencontainers/go-digest"
	fstypes "github.com/tonistiigi/fsutil/types"
)

// Frontend builds one kind of input. Build may be called concurrently. The references in the result belong to the bridge, which
// outlives the build.
type Frontend interface {
	Build(ctx context.Context, b Bridge, r Request) (*Result, error)
}

// Request is what a client, or another frontend, asks a frontend for.
type Request struct {
	// Opts are the frontend's options, as BuildKit's clients name them ("filename", "build-arg:K", "target", …).
	Opts map[string]string
	// Inputs are named graphs given in place of named contexts.
	Inputs map[string]*pb.Definition
	// CacheImports are asked before anything runs.
	CacheImports []gwclient.CacheOptionsEntry
}

// Result is what a frontend built: references by platform, and metadata such as image configs.
type Result = gwclient.Result

// Bridge is the engine as frontends see it. All methods are safe for concurrent use.
type Bridge interface {
	// Solve loads a definition. Unless evaluate is set nothing runs before the reference is read or exported. A definition
	// without ops gives a reference to nothing.
	Solve(ctx context.Context, def *pb.Definition, evaluate bool) (Reference, error)
	// ImportCaches lets what is looked up from now on be found in caches of other machines, too.
	ImportCaches(list []gwclient.CacheOptionsEntry)
	// Frontend runs another frontend by name, "dockerfile.v0" or "gateway.v0".
	Frontend(ctx context.Context, name string, r Request) (*Result, error)
	// ResolveSource asks a source what it means now.
	ResolveSource(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error)
	// Restrict returns the bridge with more source policies to pass: for what is asked of it, and for the frontends that it runs.
	Restrict(policies []*spb.Policy) (Bridge, error)
	// Warn tells the build's viewers.
	Warn(ctx context.Context, step digest.Digest, msg string, opts gwclient.WarnOpts) error
	// Session is the id of the build's first session.
	Session() string
	// Workers describes what steps can run on; the first platform of the first is the default.
	Workers() []gwclient.WorkerInfo
	// Product names the engine to frontends.
	Product() string
	// Log returns a writer whose text the build's viewers see under a name, once there is any. The caller closes it.
	Log(name string) io.WriteCloser
	// NewContainer composes a container, in which nothing runs yet. The caller releases it; what is not is released with the build.
	NewContainer(ctx context.Context, req gwclient.NewContainerRequest) (gwclient.Container, error)
}

// Reference is one output of a graph, in the making or made. It lives until the bridge ends.
type Reference interface {
	// Definition returns the graph it came from.
	Definition() *pb.Definition
	Evaluate(ctx context.Context) error
	ReadFile(ctx context.Context, req gwclient.ReadRequest) ([]byte, error)
	StatFile(ctx context.Context, req gwclient.StatRequest) (*fstypes.Stat, error)
	ReadDir(ctx context.Context, req gwclient.ReadDirRequest) ([]*fstypes.Stat, error)
}
