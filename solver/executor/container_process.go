package executor

import (
	"context"
	"errors"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Process is one process of a [Container]. All methods are safe for concurrent use.
type Process struct {
	args   []string
	resize chan Size
	signal chan int
	kill   context.CancelCauseFunc
	done   chan struct{} // closed when it has ended and all of its output was written
	code   int           // valid then
	err    error         // likewise
}

// ErrKilled is what a process ends with that [Process.Kill] ended.
var ErrKilled = errors.New("the process was killed")

// Wait returns when the process has ended and its output was written: [ExitError] for a code other than 0, [ErrKilled] or
// [ErrReleased] when that is what ended it. It returns the cause of ctx when that ends first.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	switch {
	case p.err != nil:
		return p.err
	case p.code != 0:
		return &ExitError{Args: p.args, Code: p.code}
	}
	return nil
}

// Signal sends a signal by its number. To a process that has ended it does nothing.
func (p *Process) Signal(ctx context.Context, sig int) error {
	select {
	case p.signal <- sig:
	case <-p.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// Resize tells the process the size of its terminal, if it has one.
func (p *Process) Resize(ctx context.Context, size Size) error {
	select {
	case p.resize <- size:
	case <-p.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// Kill ends the process, with the container if it is the first. It does not wait.
func (p *Process) Kill() { p.kill(ErrKilled) }

func (p *Process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// describe makes what the runtime is told of a further process. The container was described before.
func (c *Container) describe(ctx context.Context, spec ProcessSpec, secret *secrets, tty bool) (*specs.Process, error) {
	s := c.s
	if spec.Security == SecurityInsecure && s.spec.Security != SecurityInsecure {
		return nil, &InvalidSpecError{Field: "security", Err: errors.New("the container's first process is confined, and so are all others")}
	}
	step := s.spec
	step.Args, step.Env, step.Cwd, step.User = spec.Args, spec.Env, spec.Cwd, spec.User
	step, err := checked(step)
	if err != nil {
		return nil, err
	}
	like := *s.laid
	like.spec, like.tty = &step, tty
	if like.user, err = lookupUser(s.view, step.User); err != nil {
		return nil, err
	}
	s.emulated(&like)
	like.env = s.environment(step.Env, secret.env, like.user, tty)
	whole, err := like.ociSpec(ctx)
	if err != nil {
		return nil, fmt.Errorf("describe process: %w", err)
	}
	return whole.Process, nil
}
