// Package source is where the first inputs of a build come from. A [Source] pins what an identifier means now, and later
// fetches exactly that.
package source

import (
	"context"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// Request asks a source for something. Attrs are those of LLB's SourceOp.
type Request struct {
	// Identifier is "scheme://rest".
	Identifier string
	Attrs      map[string]string
	Platform   ocispecs.Platform
	// OldModes asks for the permissions that BuildKit gave files of a git checkout before 0.15: anyone may write those that nobody
	// executes.
	OldModes bool
}

// Env is what the work may use of whoever waits for it: it asks anew each time it needs a session.
type Env struct {
	// Sessions returns the sessions of the builds that wait now; never nil.
	Sessions func() *session.Group
	// Progress may be nil.
	Progress progress.Writer
	// Answers are those of the build that asks; nil remembers nothing.
	Answers *Answers
}

// Source serves one or more identifier schemes. All methods are safe for concurrent use.
type Source interface {
	// Schemes are those it serves, without "://".
	Schemes() []string
	// Pin resolves a request to something that cannot change any more: a digest, a commit, bytes. It may go to the network or to
	// the client. The caller closes what it gets.
	Pin(ctx context.Context, env Env, r Request) (Pinned, error)
}

// Pinned is what a request meant.
type Pinned interface {
	// Key names it without host, session or secret.
	Key() solver.Parts
	// Fetch returns a hold on its layers, which may be lazy. May be called more than once.
	Fetch(ctx context.Context, env Env) (*layers.Ref, error)
	// Close gives back what pinning took.
	Close() error
}

// Named is a Pinned that has a name which lasts longer than the build: the digest of an image's root or of a file, a commit.
// Provenance tells it.
type Named interface {
	Pinned
	// Name returns it.
	Name() string
}
