package source

import (
	"context"
	"errors"
	"io"
	"sync"
)

// Answers is what sources said during one build. What may change at any moment outside, a file behind a URL or a branch, means
// one thing for as long as the build lasts: a frontend that asked before it built builds what it was told. The zero value is
// ready, a nil *Answers remembers nothing, and all methods are safe for concurrent use.
type Answers struct {
	mu     sync.Mutex
	by     map[string]*answer
	closed bool
}

type answer struct {
	turn  chan struct{} // holds one token: who has it asks
	known bool
	value any
}

var errAnswersClosed = errors.New("the build has ended")

// Answer returns what was answered to key before, or asks. Those who come together wait for one another; an error is not
// remembered. A value that is an [io.Closer] is closed by [Answers.Close].
func Answer[T any](ctx context.Context, a *Answers, key string, ask func(context.Context) (T, error)) (T, error) {
	var none T
	if a == nil {
		return ask(ctx)
	}
	e, err := a.at(key)
	if err != nil {
		return none, err
	}
	select {
	case <-e.turn:
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
	defer func() { e.turn <- struct{}{} }()
	if e.known {
		return e.value.(T), nil
	}
	v, err := ask(ctx)
	if err != nil {
		return none, err
	}
	if err := a.keep(e, v); err != nil {
		return none, err
	}
	return v, nil
}

func (a *Answers) at(key string) (*answer, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, errAnswersClosed
	}
	e := a.by[key]
	if e == nil {
		e = &answer{turn: make(chan struct{}, 1)}
		e.turn <- struct{}{}
		if a.by == nil {
			a.by = map[string]*answer{}
		}
		a.by[key] = e
	}
	return e, nil
}

// keep remembers a value, or closes one that came too late.
func (a *Answers) keep(e *answer, v any) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return errors.Join(errAnswersClosed, closeValue(v))
	}
	e.known, e.value = true, v
	return nil
}

// Close forgets all answers and closes them.
func (a *Answers) Close() error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	var errs []error
	for _, e := range a.by {
		errs = append(errs, closeValue(e.value))
	}
	a.by = nil
	return errors.Join(errs...)
}

func closeValue(v any) error {
	if c, ok := v.(io.Closer); ok {
		return c.Close()
	}
	return nil
}
