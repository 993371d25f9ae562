package solver

import (
	"errors"
	"fmt"

	"github.com/slipwaybuild/slipway/solver/flight"
)

// ErrClosed is returned by a solver or build that was closed.
var ErrClosed = flight.ErrClosed

// LenderError wraps an error that is the fault of one of those who lend to the work (see [Call.Lenders]): a lost session, a
// refused login, a secret that this client does not have. It fails the build of that lender; other builds that waited for the
// same work try again without it.
type LenderError struct {
	// Lender is whose fault it is, one of the values of [Call.Lenders]; nil if that is not known.
	Lender any
	Err    error
}

func (e *LenderError) Error() string { return e.Err.Error() }
func (e *LenderError) Unwrap() error { return e.Err }

// BlameLender marks the error.
func (e *LenderError) BlameLender() bool { return true }

// blamed returns whose fault err is; ok is false if it is not one of a lender.
func blamed(err error) (lender any, ok bool) {
	var known *LenderError
	if errors.As(err, &known) {
		return known.Lender, true
	}
	var marked interface{ BlameLender() bool }
	return nil, errors.As(err, &marked) && marked.BlameLender()
}

// isPassing tells whether err says nothing about the work: whoever asked gave up, or the solver closes.
func isPassing(err error) bool {
	return flight.IsContextError(err) || errors.Is(err, flight.ErrClosed)
}

// inVertex says in which step err happened, unless it says so already or is no fault of a step.
func inVertex(v *Vertex, err error) error {
	var located *VertexError
	if err == nil || errors.As(err, &located) || errors.Is(err, flight.ErrClosed) {
		return err
	}
	return &VertexError{Vertex: v, Err: err}
}

func noOutput(e Edge, have int) error {
	return &VertexError{Vertex: e.Vertex, Err: fmt.Errorf("%q has %d outputs, number %d was asked for", e.Vertex.Name, have, e.Output)}
}

// lostInput returns the input that work of v's own found lost; nil if that is not what err says. Errors of steps that v's op
// asked for by itself, which may carry a LostError of theirs, are none of v's, so this does not look through them.
func lostInput(v *Vertex, err error) *LostError {
	if located, ok := err.(*VertexError); ok { //nolint:errorlint // see above
		if located.Vertex != v {
			return nil
		}
		err = located.Err
	}
	lost, ok := err.(*LostError) //nolint:errorlint // see above
	if !ok || lost.Input < 0 || lost.Input >= len(v.Inputs) {
		return nil
	}
	return lost
}

// foundLost is lostInput for what an op or a selector returned, who may have wrapped it.
func foundLost(err error) *LostError {
	var lost *LostError
	var nested *VertexError
	if errors.As(err, &nested) || !errors.As(err, &lost) {
		return nil
	}
	return lost
}
