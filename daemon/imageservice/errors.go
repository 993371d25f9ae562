package imageservice

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// NotFoundError is returned for an image that is not there.
type NotFoundError struct {
	// Name is what was asked for, with the tag that goes without saying.
	Name string
}

func (e *NotFoundError) Error() string { return "No such image: " + e.Name }

// Is makes it an errdefs.ErrNotFound.
func (e *NotFoundError) Is(target error) bool { return target == errdefs.ErrNotFound }

// classed is an error of a class whose text is the client's to read, without the name of the class.
type classed struct {
	error
	class error
}

func (e *classed) Is(target error) bool { return target == e.class }
func (e *classed) Unwrap() error        { return e.error }

func invalid(format string, args ...any) error {
	return &classed{fmt.Errorf(format, args...), errdefs.ErrInvalidArgument}
}

func conflict(format string, args ...any) error {
	return &classed{fmt.Errorf(format, args...), errdefs.ErrConflict}
}

// ignoreMissing makes nothing of what went meanwhile.
func ignoreMissing(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}
