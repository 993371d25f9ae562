package layers

import (
	"errors"
	"fmt"

	digest "github.com/opencontainers/go-digest"
)

var (
	// ErrClosed is returned by everything asked of a store that was closed.
	ErrClosed = errors.New("layer store is closed")
	// ErrReleased is returned when a hold is used, or given back again, after it was given back.
	ErrReleased = errors.New("already given back")
	// ErrNoSpace is what [NoSpaceError] wraps.
	ErrNoSpace = errors.New("no space left below the limit of the layer store")
	// ErrInUse is returned by Open when another process has the root, and by Seal and Discard when the upper is still mounted.
	ErrInUse = errors.New("in use")
	// ErrNotPacked is returned by Tar for a directory layer that was not solidified.
	ErrNotPacked = errors.New("layer is not packed")
	// ErrTooBig is returned for a layer that unpacks to more than [Options] allow.
	ErrTooBig = errors.New("layer is too big")
	// ErrGivenUp is wrapped by what a [Fetcher]'s body fails with once it has taken the download up again as often as it sees sense
	// in: the store does not ask the same Fetcher once more.
	ErrGivenUp = errors.New("download given up")
)

// DigestMismatchError says that bytes are not what their name promised. Nothing of them was kept.
type DigestMismatchError struct {
	// What tells which digest it is: "diffID" or "compressed layer".
	What      string
	Want, Got digest.Digest
}

func (e *DigestMismatchError) Error() string {
	return fmt.Sprintf("%s is %s, not %s", e.What, e.Got, e.Want)
}

// NoSpaceError says that a write would pass the limit although everything that nobody holds was evicted.
type NoSpaceError struct {
	// Limit is the ceiling, Used what is on disk or reserved, Wanted what was asked for on top; all in bytes.
	Limit, Used, Wanted int64
}

func (e *NoSpaceError) Error() string {
	return fmt.Sprintf("%v: %d bytes wanted, %d of %d used and held", ErrNoSpace, e.Wanted, e.Used, e.Limit)
}

func (e *NoSpaceError) Unwrap() error { return ErrNoSpace }

// StackTooDeepError says that a stack has more layers than the kernel can mount.
type StackTooDeepError struct{ Layers, Max int }

func (e *StackTooDeepError) Error() string {
	return fmt.Sprintf("%d layers cannot be mounted over each other, only %d", e.Layers, e.Max)
}
