package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/slipwaybuild/slipway/frontend"
	"google.golang.org/grpc"
)

// Name is what requests call this frontend.
const Name = "gateway.v0"

// Options goes with [NewFrontend].
type Options struct {
	// Dockerfile is the frontend that is built in.
	Dockerfile frontend.Frontend
	// Allowed are the only repositories that frontends may come from; empty allows all.
	Allowed []string
	// Serve opens a bridge to a program.
	Serve func(ctx context.Context, b frontend.Bridge, r frontend.Request) (Driver, error)
	// Caps are what the bridge can do.
	Caps Caps
}

// Driver is the engine's end of a frontend that is a program.
type Driver interface {
	// Server makes a server with the bridge on it. The caller stops it.
	Server() *grpc.Server
	// Returned is closed when the program has returned its result.
	Returned() <-chan struct{}
	// Wait returns the result, when it is there.
	Wait(ctx context.Context) (*frontend.Result, error)
	// End cancels the calls under way, waits for them and gives back what the program left open.
	End() error
}

// Frontend serves "gateway.v0": a frontend named by an image. The Dockerfile frontend's own images are answered by the one
// that is built in, so that the common `# syntax=docker/dockerfile:1` costs no pull and works without a network. Any other is
// run as a program in a container that speaks gRPC on its standard input and output.
type Frontend struct {
	o       Options
	allowed []string // normalised
}

// NewFrontend returns the frontend. An allowed repository that is none is an error.
func NewFrontend(o Options) (*Frontend, error) {
	f := &Frontend{o: o}
	for _, repo := range o.Allowed {
		named, err := reference.ParseNormalizedNamed(repo)
		if err != nil {
			return nil, fmt.Errorf("allowed repository %q of frontend %s: %w", repo, Name, err)
		}
		f.allowed = append(f.allowed, named.Name())
	}
	return f, nil
}

// Build runs the frontend that the option "source" names.
func (f *Frontend) Build(ctx context.Context, b frontend.Bridge, r frontend.Request) (*frontend.Result, error) {
	if _, ok := r.Opts["gateway-devel"]; ok {
		return nil, errors.New("frontend " + Name + ": the development gateway is not supported any more")
	}
	source := r.Opts["source"]
	if source == "" {
		return nil, fmt.Errorf("frontend %s: no source image was named", Name)
	}
	if err := f.check(source); err != nil {
		return nil, err
	}
	if _, replaced := r.Opts["context:"+source]; !replaced && builtin(source) {
		return f.o.Dockerfile.Build(ctx, b, r)
	}
	res, err := f.external(ctx, b, r, source)
	var own *programError
	if errors.As(err, &own) {
		return nil, fmt.Errorf("frontend %s: %w", source, err)
	}
	return res, err // of the build, which speaks for itself
}

// check refuses images of repositories that are not allowed.
func (f *Frontend) check(source string) error {
	if len(f.allowed) == 0 {
		return nil
	}
	named, err := reference.ParseNormalizedNamed(source)
	if err != nil {
		return fmt.Errorf("frontend source %q: %w", source, err)
	}
	if !slices.Contains(f.allowed, named.Name()) {
		return fmt.Errorf("'%s' is not an allowed gateway source: the daemon's configuration names those that are", source)
	}
	return nil
}

func (f *Frontend) external(ctx context.Context, b frontend.Bridge, r frontend.Request, source string) (*frontend.Result, error) {
	img, err := findImage(ctx, NewClient(b, r, f.o.Caps), source)
	if err != nil {
		return nil, err
	}
	if err := img.checkCaps(r); err != nil {
		return nil, err
	}
	ctr, err := img.container(ctx, b)
	if err != nil {
		return nil, err
	}
	driver, err := f.o.Serve(ctx, b, r)
	if err != nil {
		_ = ctr.Release(context.WithoutCancel(ctx)) // the build would, too
		return nil, err
	}
	log := b.Log("frontend " + source)
	p := &program{ctr: ctr, driver: driver, start: gwclient.StartRequest{
		Args: img.args(), Env: img.env(b, r), Cwd: img.cwd(), User: img.config.Config.User, Stderr: log, RemoveMountStubsRecursive: true,
	}}
	res, err := p.run(ctx)
	_ = log.Close() // what it shows is shown
	return res, err
}

// builtin tells whether an image is a release of the Dockerfile frontend whose language the built-in one speaks: any 1.x, also
// by digest. The labs channel has syntax of its own.
func builtin(source string) bool {
	switch source {
	case "dockerfile.v0":
		return true
	}
	named, err := reference.ParseNormalizedNamed(source)
	if err != nil {
		return false
	}
	if reference.Domain(named) != "docker.io" {
		return false
	}
	switch reference.Path(named) {
	case "docker/dockerfile", "docker/dockerfile-upstream":
	default:
		return false
	}
	tag := "latest"
	if tagged, ok := named.(reference.Tagged); ok {
		tag = tagged.Tag()
	} else if _, ok := named.(reference.Digested); ok {
		return true
	}
	if strings.HasSuffix(tag, "labs") {
		return false
	}
	return tag == "latest" || tag == "master" || tag == "1" || strings.HasPrefix(tag, "1.") || strings.HasPrefix(tag, "1-")
}
