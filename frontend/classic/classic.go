// Package classic builds Dockerfiles as docker's classic builder does: one instruction after the other, an image after each, told
// in that builder's words. It is a frontend like others: every change of the file system is LLB that the [frontend.Bridge] solves, so
// steps, cache and runs are the engine's. What is docker's own is here: how instructions change an image's config, the texts in its
// history, and which image a step is found in again.
package classic

import (
	"context"
	"errors"
	"fmt"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerui"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/frontend"
	"github.com/slipwaybuild/slipway/frontend/gateway"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// Name is what records of builds call this frontend.
const Name = "classic"

// KeyImageID is the metadata of a result that names its image, the one after the last step.
const KeyImageID = "classic.image.id"

// Options goes with [New]. All fields are needed.
type Options struct {
	Client
	// Caps are what the bridge can do.
	Caps gateway.Caps
	// Images keeps the image of every step.
	Images Images
	// Steps tells what the solver does.
	Steps Steps
}

// Client is what one request brings along besides a frontend's options.
type Client struct {
	// Output takes the build's story.
	Output Output
	// Mentioned are build arguments that were named without a value.
	Mentioned []string
	// KeepContainers says that containers of steps are not told to be removed, and RemoveFailed that those of failed steps are.
	KeepContainers, RemoveFailed bool
	// CacheFrom are images: if there are any, a step is found only in them and in what they were made of.
	CacheFrom []string
	// Names are given to the last image.
	Names []string
	// Pull brings an image from its registry into the store before a step begins with it, and tells the client of it. It is called for
	// what the store does not have, and for all that the client wants anew. A nil platform is the host's. Without Pull, images are
	// brought when a step reads them, and do not come into the store.
	Pull func(ctx context.Context, image reference.Named, platform *ocispecs.Platform) error
}

// Output is what a build is told to. Its methods are called by one goroutine at a time and do not fail: a build whose client does
// not listen any more is cancelled by its context.
type Output interface {
	// Text is the builder's own, docker's words byte for byte.
	Text(string)
	// Printed is what a step wrote to [progress.Stdout] or [progress.Stderr].
	Printed(stream int, data []byte)
	// Downloaded tells that a step fetched a file of a size from a URL.
	Downloaded(size int64)
	// Image tells the image that a stage ended with.
	Image(id digest.Digest)
}

// Steps tells of the steps that the solver works on.
type Steps interface {
	// Watch calls tell, from another goroutine, with what happens to a step from now on. The function it returns waits until all
	// that happened before it was called has been told; nothing is told after it. It must be called.
	Watch(ctx context.Context, step digest.Digest, tell func(progress.Event)) (done func() error, err error)
}

// Image is an image in the store.
type Image struct {
	// ID is the digest of its config.
	ID digest.Digest
	// Config is the JSON of that.
	Config []byte
}

// Images is the store of what steps made. A parent of "" is that of images made from scratch.
type Images interface {
	// Children lists the images that steps made of a parent, the newest first.
	Children(ctx context.Context, parent digest.Digest) ([]Image, error)
	// Commit stores an image: a file system and a config, in which layers are put. Its history has an entry that is not empty for
	// every layer of the file system. A nil reference is an empty file system.
	Commit(ctx context.Context, fs frontend.Reference, config []byte, parent digest.Digest) (Image, error)
	// Has tells whether the store has an image of this name, or with its digest.
	Has(ctx context.Context, image reference.Named) (bool, error)
	// Reference finds an image by the beginning of its id, and returns the name by which the image source finds it with the local
	// mode; "" if there is none, or several.
	Reference(ctx context.Context, id string) (string, error)
	// Lineage is the image of a name, and those it was made of as far as they are known here; none if it is not here.
	Lineage(ctx context.Context, name string) ([]digest.Digest, error)
}

// Frontend builds one request.
type Frontend struct{ o Options }

// New returns the frontend.
func New(o Options) *Frontend { return &Frontend{o: o} }

var _ frontend.Frontend = (*Frontend)(nil)

// Build runs the Dockerfile. Options are those of "dockerfile.v0". The result names its image with [KeyImageID]; errors of the
// request and the Dockerfile are [Error]s, and that of a command is a [CommandError].
func (f *Frontend) Build(ctx context.Context, bridge frontend.Bridge, r frontend.Request) (*frontend.Result, error) {
	ui, err := dockerui.NewClient(gateway.NewClient(bridge, r, f.o.Caps))
	if err != nil {
		return nil, invalid(err)
	}
	b := &builder{
		Options: f.o, bridge: bridge, settings: ui.Config, args: newBuildArgs(ui.BuildArgs, f.o.Mentioned),
	}
	_, b.noCache = r.Opts["no-cache"]
	if len(ui.TargetPlatforms) > 1 {
		return nil, invalid(errors.New("the classic builder builds for one platform at a time"))
	}
	if err := b.openContext(ctx, r.Opts); err != nil {
		return nil, err
	}
	last, err := b.build(ctx)
	if err != nil {
		return nil, err
	}
	res := gwclient.NewResult()
	if last.fs != nil {
		res.SetRef(&gateway.Reference{Reference: last.fs})
	}
	res.AddMeta(KeyImageID, []byte(last.image))
	return res, nil
}

// Error is what the classic builder says of a request, word for word.
type Error struct {
	// Invalid says that the request or the Dockerfile is at fault, found before anything ran.
	Invalid bool
	err     error
}

func (e *Error) Error() string { return e.err.Error() }
func (e *Error) Unwrap() error { return e.err }

func invalid(err error) error { return &Error{Invalid: true, err: err} }

func failed(format string, args ...any) error { return &Error{err: fmt.Errorf(format, args...)} }

// CommandError is a command that ended with a code other than 0.
type CommandError struct {
	Command string
	Code    int
}

func (e *CommandError) Error() string {
	return fmt.Sprintf("The command '%s' returned a non-zero code: %d", e.Command, e.Code)
}
