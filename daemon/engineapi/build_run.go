package engineapi

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/distribution/reference"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/slipwaybuild/slipway/daemon"
	"github.com/slipwaybuild/slipway/daemon/progresspb"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// runBuild runs the build while its story is sent, then sends what came of it.
func (a *api) runBuild(ctx context.Context, out *stream, p *buildParams, req daemon.Request) error {
	show, err := p.display(out)
	if err != nil {
		return err
	}
	var ended func()
	if !p.quiet {
		ended = a.follow(ctx, req.Ref, show)
	}
	res, err := a.Engine.Build(ctx, req)
	if ended != nil {
		ended()
	}
	if err != nil {
		return a.tellFailure(ctx, out, p, req, show, err)
	}
	p.tellSuccess(out, res)
	return out.End(nil)
}

// display sends one part of a build's story. It is called with nil once, when no more is to come.
type display func(*controlapi.StatusResponse) error

// display chooses how a build is told of: as data to clients of the session-based builder, as text to all others.
func (p *buildParams) display(out *stream) (display, error) {
	if p.classic {
		return newTextDisplay(out)
	}
	return func(part *controlapi.StatusResponse) error {
		if part == nil {
			return nil
		}
		b, err := part.MarshalVT()
		if err != nil {
			return err
		}
		return out.Send(message{ID: "moby.buildkit.trace", Aux: b})
	}, nil
}

// follow sends the story of a build that is about to begin, in a goroutine. The function it returns must be called when the
// build is over: it waits until the whole story was sent.
func (a *api) follow(ctx context.Context, ref string, show display) (ended func()) {
	// The end of a build that is cancelled is worth telling, so the story outlives ctx; it ends by itself.
	story := context.WithoutCancel(ctx)
	begun, giveUp := context.WithCancel(story)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := a.tell(story, begun, ref, show); err != nil {
			a.Logger.Debug("progress of a build is not sent on", "ref", ref, "error", err)
		}
	}()
	return func() {
		giveUp()
		<-done
	}
}

// tell shows a story from beginning to end, waiting for a build that has not begun as long as begun says.
func (a *api) tell(ctx, begun context.Context, ref string, show display) (err error) {
	defer func() { err = errors.Join(err, show(nil)) }()
	reader, err := a.Engine.Progress(begun, ref)
	if err != nil && begun.Err() != nil {
		// The build is over. If it ever began, its story is there.
		reader, err = a.Engine.Progress(begun, ref)
	}
	if err != nil {
		return err
	}
	defer func() { _ = reader.Close() }() // was only read
	for {
		batch, err := progresspb.Batch(func() (progress.Event, error) { return reader.Next(ctx) }, reader.Ready)
		if len(batch) > 0 {
			if showErr := show(progresspb.Response(batch)); showErr != nil {
				return showErr
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// tellFailure ends the answer with the build's error. A quiet client learns now what it did not want to know before.
func (a *api) tellFailure(ctx context.Context, out *stream, p *buildParams, req daemon.Request, show display, failure error) error {
	if p.quiet {
		a.follow(ctx, req.Ref, show)()
	}
	code := 0
	var exit *gwpb.ExitError
	if p.classic && errors.As(failure, &exit) {
		code = int(exit.ExitCode)
	}
	if ctx.Err() != nil && errors.Is(failure, context.Canceled) {
		failure = context.Canceled // where it was cancelled is nobody's business
	}
	return out.EndWith(failure, code)
}

// tellSuccess sends the image's id and its names.
func (p *buildParams) tellSuccess(out *stream, res *daemon.Response) {
	id := ""
	if p.storesImage() {
		id = imageID(res.Exporter)
	}
	// A client that does not listen any more has its image all the same.
	send := func(m message) { _ = out.Send(m) }
	switch {
	case id == "":
		return
	case p.quiet:
		send(message{Stream: id + "\n"})
		return
	case p.classic:
		send(message{Aux: map[string]string{"ID": id}})
		send(message{Stream: fmt.Sprintf("Successfully built %.12s\n", id[len("sha256:"):])})
	default:
		send(message{ID: "moby.image.id", Aux: map[string]string{"ID": id}})
	}
	for _, t := range p.tags {
		send(message{Stream: "Successfully tagged " + reference.FamiliarString(t) + "\n"})
	}
}

// imageID is what docker calls an image: the digest of its config, or of its index if it has several.
func imageID(answer map[string]string) string {
	if id := answer[exptypes.ExporterImageConfigDigestKey]; id != "" {
		return id
	}
	return answer[exptypes.ExporterImageDigestKey]
}
