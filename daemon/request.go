package daemon

import (
	"errors"
	"fmt"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
	"github.com/slipwaybuild/slipway/daemon/history"
	"github.com/slipwaybuild/slipway/frontend/classic"
	"github.com/slipwaybuild/slipway/session/peer"
)

// Request is one build, whatever door it came through.
type Request struct {
	// Ref is the client's name for the build, unique among those that run.
	Ref string
	// Owner is the client that asks. The build uses no sessions but that client's.
	Owner peer.Identity
	// Sessions are ids of the client's sessions, the first preferred. A session need not be there yet.
	Sessions []string
	// Frontend and FrontendAttrs, or Definition, say what to build, unless the build is Driven. A definition without ops is a
	// build of nothing.
	Frontend       string
	FrontendAttrs  map[string]string
	FrontendInputs map[string]*pb.Definition
	Definition     *pb.Definition
	// Classic has the classic builder build what the options of the frontend say. The builder stores an image after every step and
	// names the last one; Outputs are not written. The frontend's name is then no more than what the build's record says.
	Classic *classic.Client
	// CacheImports are caches of other machines to read, CacheExports those to write.
	CacheImports []gwclient.CacheOptionsEntry
	CacheExports []CacheExport
	// SourcePolicy is held against every source of the build; nil allows all.
	SourcePolicy *spb.Policy
	// PolicySession is the id of a session that is asked about every source; "" asks nobody.
	PolicySession string
	// Refused is why the door that the request came through does not pass it on; nil if it does. It is the build's error: a client
	// that follows the build sees it end.
	Refused error
	// Driven says that the client stands in the frontend's place: it asks the build's [Gateway] for what it needs, and returns
	// the result there. The build lasts until then.
	Driven bool
	// AskExporters has the first session asked for more outputs once the result is there, and told what all of them answered.
	AskExporters bool
	// Outputs are where the outcome goes; none keeps it in the cache alone.
	Outputs []Output
	// Internal builds are asked for by a client for itself, such as Dockerfile checks: they are not recorded.
	Internal bool
	// Compat is the version of BuildKit's behaviour that the client wants, one of [exporter.Compats]; 0 is the current one.
	Compat int
	// Entitlements are what the client allows; a step gets one only if the daemon's configuration allows it too.
	Entitlements []string
}

// Output is one place the outcome goes to. Its position in the request is the exporter id that clients are told.
type Output struct {
	Type  string
	Attrs map[string]string
}

// Response is what clients learn of a finished build.
type Response struct {
	// Exporter holds the answers of all outputs, keys as BuildKit names them.
	Exporter map[string]string
}

// maxRef bounds a build's name, in bytes.
const maxRef = 512

// Errors of requests.
var (
	ErrInvalidRequest = errors.New("invalid build request")
	ErrBuildExists    = history.ErrRunning
	ErrNoBuild        = history.ErrNotFound
	// ErrPruned says that the result of an earlier build is not there any more.
	ErrPruned = errors.New("result was pruned")
)

func (r Request) validateRef() error {
	switch {
	case r.Ref == "":
		return fmt.Errorf("%w: no ref", ErrInvalidRequest)
	case len(r.Ref) > maxRef:
		return fmt.Errorf("%w: ref of %d bytes", ErrInvalidRequest, len(r.Ref))
	}
	return nil
}

func (r Request) validate() error {
	switch {
	case r.Refused != nil:
		return r.Refused
	case r.Driven && (r.Frontend != "" || r.Definition != nil):
		return fmt.Errorf("%w: driven by the client, and also a frontend or a definition", ErrInvalidRequest)
	case r.Driven:
		return nil
	case r.Frontend != "" && r.Definition != nil && len(r.Definition.Def) > 0:
		return fmt.Errorf("%w: both the frontend %q and a definition", ErrInvalidRequest, r.Frontend)
	case r.Frontend == "" && r.Definition == nil:
		return fmt.Errorf("%w: neither a frontend nor a definition", ErrInvalidRequest)
	}
	return nil
}
