package session

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slipwaybuild/slipway/session/peer"
)

// The headers of the handshake, over HTTP as they stand and over gRPC metadata in lower case.
const (
	headerID        = "X-Docker-Expose-Session-Uuid"
	headerName      = "X-Docker-Expose-Session-Name"
	headerSharedKey = "X-Docker-Expose-Session-Sharedkey"
	headerMethod    = "X-Docker-Expose-Session-Grpc-Method"
	headerHealth    = "X-Buildkit-Session-Health-Custom-Timeout"
	// encodedSuffix makes the header that says that a value is query-escaped, because headers carry ASCII only.
	encodedSuffix = "-Encoded"
)

// Limits of what a client may announce; a real one needs a small part of them.
const (
	maxIDLength    = 256
	maxValueLength = 4 << 10
	maxMethods     = 1024
)

// handshake is what a client says of its session before the protocol changes.
type handshake struct {
	owner     peer.Identity // of the connection, not of what the client says
	id        string
	name      string
	sharedKey string
	methods   []string
	// health is how long the client wants to be let stay silent; 0 leaves it to the daemon.
	health time.Duration
}

func (h handshake) key() key { return key{h.owner, h.id} }

// meta writes the handshake as headers.
func (h handshake) meta() map[string][]string {
	m := map[string][]string{
		headerID:     {h.id},
		headerMethod: slices.Clone(h.methods),
	}
	put(m, headerName, h.name)
	put(m, headerSharedKey, h.sharedKey)
	return m
}

func put(m map[string][]string, key, value string) {
	encoded := strings.ContainsFunc(value, func(r rune) bool { return r < 0x20 || r > 0x7e })
	if encoded {
		value = url.QueryEscape(value)
		m[key+encodedSuffix] = []string{"1"}
	}
	m[key] = []string{value}
}

// parseHandshake reads headers of any case. An error is a [RequestError].
func parseHandshake(meta map[string][]string) (handshake, error) {
	head := make(http.Header, len(meta))
	for k, v := range meta {
		key := http.CanonicalHeaderKey(k)
		head[key] = append(head[key], v...)
	}
	h := handshake{id: head.Get(headerID), methods: head[headerMethod]}
	if err := checkID(h.id); err != nil {
		return handshake{}, err
	}
	var err error
	if h.name, err = get(head, headerName); err != nil {
		return handshake{}, err
	}
	if h.sharedKey, err = get(head, headerSharedKey); err != nil {
		return handshake{}, err
	}
	h.health = healthTimeout(head.Get(headerHealth))
	if len(h.methods) > maxMethods {
		return handshake{}, refuse(ErrBadHeader, "%s: %d methods, at most %d are taken", headerMethod, len(h.methods), maxMethods)
	}
	for _, m := range h.methods {
		if len(m) > maxValueLength {
			return handshake{}, refuse(ErrBadHeader, "%s: %d bytes, at most %d are taken", headerMethod, len(m), maxValueLength)
		}
	}
	return h, nil
}

// healthTimeout reads the milliseconds after which a client that asks for it counts as lost; what makes no sense is not asked.
func healthTimeout(v string) time.Duration {
	ms, err := strconv.ParseInt(v, 10, 32)
	if err != nil || ms <= 0 {
		return 0
	}
	return max(time.Duration(ms)*time.Millisecond, time.Second)
}

// checkID keeps out what would make ids ambiguous (the prefix mark) or unreadable in a log.
func checkID(id string) error {
	switch {
	case id == "":
		return refuse(ErrBadHeader, "no session id: header %s is missing", headerID)
	case len(id) > maxIDLength:
		return refuse(ErrBadHeader, "%s: %d bytes, at most %d are taken", headerID, len(id), maxIDLength)
	case strings.ContainsFunc(id, func(r rune) bool { return r <= 0x20 || r > 0x7e || r == ':' }):
		return refuse(ErrBadHeader, "%s: %q has characters that an id cannot have", headerID, id)
	}
	return nil
}

func get(head http.Header, key string) (string, error) {
	v := head.Get(key)
	if len(v) > maxValueLength {
		return "", refuse(ErrBadHeader, "%s: %d bytes, at most %d are taken", key, len(v), maxValueLength)
	}
	if encoded, err := strconv.ParseBool(head.Get(key + encodedSuffix)); err != nil || !encoded {
		return v, nil
	}
	// What cannot be decoded is taken as it is: these values are hints, and a build need not fail for one.
	if decoded, err := url.QueryUnescape(v); err == nil {
		return decoded, nil
	}
	return v, nil
}
