// Package upload carries one stream of bytes from a client to the daemon: a build context that the user piped into the client.
//
// The client registers a reader and gets a URL for it ([Service.Add]), which it names as the build's context. The daemon recognises
// the URL by its host, [Host], and pulls the bytes ([Pull]). A reader can be read once, so it is served once.
package upload

import (
	"errors"

	pb "github.com/moby/buildkit/session/upload"
)

// Host is the host in the URLs of uploads; it names the session and no machine.
const Host = "buildkit-session"

// Metadata of a Pull call.
const (
	keyPath = "urlpath"
	keyHost = "urlhost"
)

// chunk is how many bytes are put into one message.
const chunk = 256 << 10

// ErrNotFound says that no session has an upload at this place, or it was pulled already.
var ErrNotFound = errors.New("no such upload")

// message keeps the generated type's name in one place.
type message = pb.BytesMessage
