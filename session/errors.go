package session

import (
	"errors"
	"fmt"
)

// ErrNoSession is returned when no session of a group could serve, and when a session that was waited for did not arrive. The
// error around it says which ids, and why each of them could not.
var ErrNoSession = errors.New("no active session")

// ErrNotSupported may be returned (wrapped) by a function passed to [Group.Any] to say that this session does not offer what is
// wanted, so that the next one is tried.
var ErrNotSupported = errors.New("not supported by the client")

// ErrClosed is returned by a [Manager] that was closed.
var ErrClosed = errors.New("session manager is closed")

// What can be wrong with a handshake; see [RequestError].
var (
	// ErrNoUpgrade is for a request that does not ask for a protocol upgrade.
	ErrNoUpgrade = errors.New("no upgrade proto in request")
	// ErrProtocol is for a request for another protocol than h2c, or one that cannot be upgraded.
	ErrProtocol = errors.New("protocol not supported")
	// ErrExists is for the id of a live session.
	ErrExists = errors.New("session already exists")
	// ErrBadHeader is for a handshake header that is missing, too long, or holds what it must not.
	ErrBadHeader = errors.New("invalid session header")
)

// RequestError is a handshake that was refused because of what the client sent. Nothing has been written to the client; an HTTP
// door answers 400 with the error's text, which is the text that Docker's daemon uses where it has one.
type RequestError struct {
	// Kind is one of the sentinels above, for errors.Is.
	Kind error
	// Message is the whole text.
	Message string
}

func (e *RequestError) Error() string { return e.Message }

func (e *RequestError) Unwrap() error { return e.Kind }

func refuse(kind error, format string, args ...any) error {
	return &RequestError{Kind: kind, Message: fmt.Sprintf(format, args...)}
}
