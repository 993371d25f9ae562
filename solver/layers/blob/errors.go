package blob

import (
	"errors"
	"fmt"
)

var (
	// ErrUnsafePath is returned for a name that would lead out of the root, or that means something else than it says.
	ErrUnsafePath = errors.New("unsafe path")
	// ErrLimit is returned when a layer goes beyond [Limits], or beyond what the format can hold.
	ErrLimit = errors.New("limit exceeded")
	// ErrBadEntry is returned for an entry that makes no sense where it is: a hard link to nothing, a name inside a file.
	ErrBadEntry = errors.New("bad entry")
	// ErrUnsupported is returned for an entry of a type that no layer can hold.
	ErrUnsupported = errors.New("unsupported entry type")
	// ErrDamaged is returned when a blob is not what was written.
	ErrDamaged = errors.New("blob is damaged")
	// ErrNotSelfContained is returned for a directory layer that only makes sense on top of others: one written with
	// overlayfs's redirect_dir or metacopy.
	ErrNotSelfContained = errors.New("layer needs the layers below")
)

// EntryError says which entry of a layer an error is about.
type EntryError struct {
	// Name is the name as the layer has it.
	Name string
	Err  error
}

func (e *EntryError) Error() string { return fmt.Sprintf("entry %q: %v", shorten(e.Name), e.Err) }

func (e *EntryError) Unwrap() error { return e.Err }

func entryError(name string, kind error, format string, args ...any) error {
	return &EntryError{Name: name, Err: fmt.Errorf("%w: "+format, append([]any{kind}, args...)...)}
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrDamaged}, args...)...)
}

// shorten keeps a hostile name from filling a log.
func shorten(s string) string {
	const most = 256
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}
