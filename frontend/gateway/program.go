package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/slipwaybuild/slipway/frontend"
)

// leaveTime is how long a frontend that has returned its result may take to end.
const leaveTime = 10 * time.Second

// programError is about the program, and not what it says of the build.
type programError struct{ err error }

func (e *programError) Error() string { return e.err.Error() }
func (e *programError) Unwrap() error { return e.err }

// program is one run of a frontend's program, and the server that it talks to.
type program struct {
	ctr    gwclient.Container
	driver Driver
	start  gwclient.StartRequest
}

// run runs the program to its end. It closes the container and the driver; the result's references belong to the bridge.
func (p *program) run(ctx context.Context) (_ *frontend.Result, err error) {
	conn := newPipeConn()
	server := p.driver.Server()
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(conn.listener()) // why it ended, conn knows
	}()
	defer func() {
		// The program first, then what it asked for, then the server, which waits for that.
		end := p.ctr.Release(context.WithoutCancel(ctx))
		_ = conn.Close() // nobody is there any more
		if end = errors.Join(end, p.driver.End()); err == nil {
			err = end
		}
		server.Stop()
		<-served
	}()
	p.start.Stdin, p.start.Stdout = conn.stdin, conn.stdout
	proc, err := p.ctr.Start(ctx, p.start)
	if err != nil {
		return nil, &programError{err}
	}
	exited := make(chan error, 1)
	go func() {
		exited <- proc.Wait()
		conn.hangUp() // whatever it wrote was read
	}()
	return p.attend(ctx, conn, exited)
}

// attend waits for the program to return its result and to end. An error it returned counts more than how it ended, and that
// more than a result.
func (p *program) attend(ctx context.Context, conn *pipeConn, exited <-chan error) (*frontend.Result, error) {
	var ended error
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case ended = <-exited:
	case <-conn.closed:
		if err := conn.garbage(); err != nil {
			return nil, &programError{err}
		}
		// It may have hung up because it is about to end.
		ended = p.leave(ctx, exited, errors.New("its connection was lost before it returned a result"))
	case <-p.driver.Returned():
		ended = p.leave(ctx, exited, fmt.Errorf("has returned its result, and then did not end within %v", leaveTime))
	}
	select {
	case <-p.driver.Returned():
	default:
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case conn.garbage() != nil && ended != nil:
			ended = fmt.Errorf("%w (it %w)", ended, conn.garbage())
		case conn.garbage() != nil:
			ended = conn.garbage()
		case ended == nil:
			ended = errors.New("ended without returning a result")
		}
		return nil, &programError{ended}
	}
	res, err := p.driver.Wait(ctx)
	if err == nil && ended != nil {
		return nil, &programError{ended}
	}
	return res, err
}

// leave waits for the end of a program that has no business any more; an error is how it ended, or late if it did not.
func (p *program) leave(ctx context.Context, exited <-chan error, late error) error {
	timer := time.NewTimer(leaveTime)
	defer timer.Stop()
	select {
	case err := <-exited:
		return err
	case <-timer.C:
		return late
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
