package engineapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"github.com/distribution/reference"
	"github.com/docker/go-units"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/daemon"
	"github.com/slipwaybuild/slipway/daemon/imageservice"
	"github.com/slipwaybuild/slipway/frontend/classic"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// classicClient is what the classic builder needs to know of the request besides the frontend's options.
func (p *buildParams) classicClient(out classic.Output) *classic.Client {
	c := &classic.Client{Output: out, KeepContainers: !p.remove && !p.removeAlways, RemoveFailed: p.removeAlways}
	for k, v := range p.args {
		if v == nil {
			c.Mentioned = append(c.Mentioned, k)
		}
	}
	slices.Sort(c.Mentioned)
	for _, name := range p.cacheFrom {
		if name != "" {
			c.CacheFrom = append(c.CacheFrom, name)
		}
	}
	for _, t := range p.tags {
		c.Names = append(c.Names, t.String())
	}
	return c
}

// classicNetwork takes the networks that the classic builder knows and that there are here: steps have a bridge anyway.
func (p *buildParams) classicNetwork() error {
	switch p.network {
	case "bridge":
		p.network = ""
	case "", "default", "none", "host":
	default:
		return invalid("network mode %q: steps can have the networks default, bridge, host and none here", p.network)
	}
	return nil
}

// runClassic has the classic builder build.
func (a *api) runClassic(ctx context.Context, out *stream, p *buildParams, req daemon.Request) error {
	told := &classicOutput{out: out, quiet: p.quiet}
	req.Frontend, req.Outputs = classic.Name, nil
	delete(req.FrontendAttrs, "cache-imports") // it looks for images of its own
	req.Classic = p.classicClient(told)
	req.Classic.Pull = func(ctx context.Context, image reference.Named, platform *ocispecs.Platform) error {
		sessions := func() *session.Group { return a.Sessions.GroupOf(req.Owner, req.Sessions...) }
		return pullFailure(image, a.Images.Pull(ctx, image, platform, sessions, told.pulled))
	}
	res, err := a.Engine.Build(ctx, req)
	if err == nil {
		p.tellNames(out, imageID(res.Exporter))
		return out.End(nil)
	}
	told.tellAll()
	code, failure := classicFailure(ctx, err)
	return out.EndWith(failure, code)
}

// classicFailure is the code that clients exit with after a failure, and what they are told.
func classicFailure(ctx context.Context, err error) (int, error) {
	var command *classic.CommandError
	var own *classic.Error
	switch {
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return 0, context.Canceled
	case errors.As(err, &command):
		return command.Code, command
	case errors.As(err, &own) && own.Invalid:
		return 0, withStatus(http.StatusBadRequest, "%w", err)
	}
	return 0, err
}

// tellNames tells what the image is called.
func (p *buildParams) tellNames(out *stream, id string) {
	// A client that does not listen any more has its image all the same.
	send := func(text string) { _ = out.Send(message{Stream: text}) }
	if p.quiet {
		send(id + "\n")
		return
	}
	send(fmt.Sprintf("Successfully built %.12s\n", digest.Digest(id).Encoded()))
	for _, t := range p.tags {
		send("Successfully tagged " + familiar(t) + "\n")
	}
}

// classicOutput sends the classic builder's story as docker's messages. A quiet client gets it only if the build fails.
type classicOutput struct {
	out   *stream
	quiet bool

	mu   sync.Mutex // pulls tell from several goroutines
	kept []message
}

var _ classic.Output = (*classicOutput)(nil)

// maxKept is how many messages are kept of a quiet build; of more, the last.
const maxKept = 4096

func (o *classicOutput) send(m message) {
	if o.quiet {
		o.mu.Lock()
		defer o.mu.Unlock()
		if len(o.kept) == maxKept {
			o.kept = o.kept[1:]
		}
		o.kept = append(o.kept, m)
		return
	}
	_ = o.out.Send(m) // a client that is gone cancels its build
}

// tellAll sends what was kept back.
func (o *classicOutput) tellAll() {
	for _, m := range o.kept {
		_ = o.out.Send(m)
	}
	o.kept = nil
}

// Text implements [classic.Output].
func (o *classicOutput) Text(text string) { o.send(message{Stream: text}) }

// Printed implements [classic.Output]. What a step writes to its standard error is shown in red, as docker does.
func (o *classicOutput) Printed(stream int, data []byte) {
	text := string(data)
	if stream == progress.Stderr {
		text = "\x1b[91m" + text + "\x1b[0m"
	}
	o.send(message{Stream: text})
}

// Downloaded implements [classic.Output].
func (o *classicOutput) Downloaded(size int64) {
	human := units.HumanSizeWithPrecision(float64(size), 4)
	o.send(message{
		Status: "Downloading", Detail: &progressDetail{Current: size, Total: size},
		Progress: fmt.Sprintf("[==================================================>] %8v/%v", human, human),
	})
}

// pulled tells how far the pull of an image is.
func (o *classicOutput) pulled(u imageservice.Update) { o.send(updateMessage(u)) }

// Image implements [classic.Output].
func (o *classicOutput) Image(id digest.Digest) {
	if !o.quiet {
		o.send(message{Aux: map[string]string{"ID": id.String()}})
	}
}
