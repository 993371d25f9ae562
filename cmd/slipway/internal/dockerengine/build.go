package dockerengine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
)

// A build that was cancelled may not have been known to the daemon yet, so it is cancelled again until it ends; after so many times its
// connection is closed.
const (
	cancelEvery = 500 * time.Millisecond
	cancelTries = 10
)

// uploadOf begins the build id of a request that only brings the context of another one.
const uploadOf = "upload-request:"

// Build is a build by session.
type Build struct {
	// ID is the client's name for the build, by which it is cancelled.
	ID string
	// Query are the parameters of POST /build but for its id and its builder.
	Query url.Values
	// Upload is a context that is brought in a second request; nil if there is none. It is not closed, and a read of it may still
	// wait when the build is over.
	Upload io.Reader
}

// Build runs a build and returns the id of its image, "" if it made none. What the daemon tells of its progress goes to show, in order
// and from one goroutine. When ctx ends the build is cancelled, and its end is waited for.
func (c *Client) Build(ctx context.Context, b Build, show func(*controlapi.StatusResponse)) (string, error) {
	running, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	over := c.cancelWith(ctx, b.ID, func() { end(context.Cause(ctx)) })
	defer over()
	if b.Upload != nil {
		done := c.upload(running, b, end)
		defer func() { end(nil); <-done }()
	}
	q := url.Values{}
	maps.Copy(q, b.Query)
	q.Set("version", "2")
	q.Set("buildid", b.ID)
	id, err := c.build(running, q, show)
	if cause := context.Cause(running); err != nil && cause != nil && ctx.Err() == nil {
		err = cause
	}
	return id, err
}

func (c *Client) build(ctx context.Context, q url.Values, show func(*controlapi.StatusResponse)) (string, error) {
	res, err := c.send(ctx, http.MethodPost, "/build", q, nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	return readBuild(res.Body, show)
}

// upload brings the build's context. The channel it returns is closed when that is over; an upload that fails ends the build.
func (c *Client) upload(ctx context.Context, b Build, end context.CancelCauseFunc) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		q := url.Values{"version": {"2"}, "buildid": {uploadOf + b.ID}}
		body := piped(b.Upload)
		defer body.Close()
		// The transport waits for a body to be read, and would wait for ever for one that has nothing to say.
		defer context.AfterFunc(ctx, func() { _ = body.Close() })()
		res, err := c.send(ctx, http.MethodPost, "/build", q, body)
		if err == nil {
			_, err = readBuild(res.Body, func(*controlapi.StatusResponse) {})
			err = errors.Join(err, res.Body.Close())
		}
		if err != nil && ctx.Err() == nil {
			end(fmt.Errorf("send the build context: %w", err))
		}
	}()
	return done
}

// piped reads r in a goroutine that ends with r, or with the first byte after the returned reader was closed.
func piped(r io.Reader) io.ReadCloser {
	out, in := io.Pipe()
	go func() {
		_, err := io.Copy(in, r)
		_ = in.CloseWithError(err) // never fails
	}()
	return out
}

// cancelWith cancels a build when ctx ends, and calls giveUp if it does not end then. over must be called when it is over.
func (c *Client) cancelWith(ctx context.Context, id string, giveUp func()) (over func()) {
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-ended:
			return
		case <-ctx.Done():
		}
		asking, stop := context.WithTimeout(context.WithoutCancel(ctx), cancelTries*cancelEvery)
		defer stop()
		tick := time.NewTicker(cancelEvery)
		defer tick.Stop()
		for {
			if err := c.cancel(asking, id); err != nil {
				giveUp()
				return
			}
			select {
			case <-ended:
				return
			case <-asking.Done():
				giveUp()
				return
			case <-tick.C:
			}
		}
	}()
	return func() { close(ended); <-done }
}

func (c *Client) cancel(ctx context.Context, id string) error {
	res, err := c.send(ctx, http.MethodPost, "/build/cancel", url.Values{"id": {id}}, nil)
	if err != nil {
		return fmt.Errorf("cancel the build: %w", err)
	}
	return res.Body.Close()
}
