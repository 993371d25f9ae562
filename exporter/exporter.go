// Package exporter writes what a build made. An [Exporter] is made for one output of one build by the [Factory] registered
// under the output's type; it is handed the layers and configs and answers with what clients want to know.
package exporter

import (
	"context"

	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/exporter/attestation"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/samehost"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// Factory checks the attributes of an output and makes its exporter, before the build starts. What it needs of the engine it
// was constructed with. id is the output's number in the request: clients with several outputs are told it.
type Factory func(id int, attrs map[string]string) (Exporter, error)

// Exporter writes one output. Export is called once.
type Exporter interface {
	// Name is shown as the name of the step, "exporting to image".
	Name() string
	// Export writes the input and returns the response, with keys as BuildKit names them ("containerimage.digest", …). The
	// input stays the caller's and is valid until Export returns.
	Export(ctx context.Context, in Input, p progress.Writer) (map[string]string, error)
}

// Input is what a build made.
type Input struct {
	// Platforms holds one entry per platform, at least one, in the order asked for.
	Platforms []Platform
	// MultiPlatform says that the client asked for an index or per-platform directories even if there is one platform.
	MultiPlatform bool
	// Metadata is the frontend's, with keys as BuildKit's exptypes name them, without the per-platform ones above.
	Metadata map[string][]byte
	// Sessions are those of the build.
	Sessions *session.Group
	// Streams is shared by all attempts to write the outputs of a build; nil where there is one only.
	Streams *Streams
	// Host reaches the files of clients on this host; nil reaches none.
	Host *samehost.Host
	// Fetcher brings the bytes of lazy layers.
	Fetcher layers.Fetcher
	// InlineCache makes what the config of a platform's image says of the cache, from the diffIDs of the image's layers. It may give
	// nothing. Nil if the client asked for no inline cache.
	InlineCache func(ctx context.Context, platform string, diffIDs []digest.Digest) ([]byte, error)
	// Compat is the version of BuildKit's behaviour that was asked for; 0 is the current one.
	Compat int
	// SourceDateEpoch is in seconds; nil if none was asked for.
	SourceDateEpoch *int64
}

// Platform is the result for one platform.
type Platform struct {
	// ID is how the frontend names it, "linux/amd64".
	ID       string
	Platform ocispecs.Platform
	// Ref is the file system; an empty stack for none. The caller's.
	Ref *layers.Ref
	// Config is the image config the frontend made, nil for raw LLB.
	Config []byte
	// BaseConfig is the config of the base image, for inline cache and annotations; may be nil.
	BaseConfig []byte
	// Attestations are what is said of the result; none unless asked for.
	Attestations []attestation.Attestation
}
