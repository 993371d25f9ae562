package filesync

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/grpc/metadata"
)

// Request metadata of the services, as BuildKit names them.
const (
	keyDirName       = "dir-name"
	keyInclude       = "include-patterns"
	keyExclude       = "exclude-patterns"
	keyFollow        = "followpaths"
	keyExporterID    = "buildkit-attachable-exporter-id"
	keyMultiPlatform = "buildkit-exporter-multi-platform"
	prefixExporterMD = "exporter-md-"
	suffixEncoded    = "-encoded"
)

// Request metadata that only our own client understands; others ignore it.
const (
	// keyHints asks for a change hint with every regular file.
	keyHints = "slipway-change-hints"
	// keyInline is the size in bytes up to which a regular file's contents may come in the Data of its STAT packet.
	keyInline = "slipway-inline"
)

// hintXattr carries a change hint in a Stat. It has no namespace, so no file system can hold it: it is never confused with an
// attribute of the file. It is taken off again as soon as it is received.
const hintXattr = "slipway-change-hint"

const (
	methodSync = "/moby.filesync.v1.FileSync/DiffCopy"
	methodSend = "/moby.filesync.v1.FileSend/DiffCopy"
)

// encode puts values into metadata. gRPC headers hold printable ASCII only; a list with anything else is query-escaped as a whole and
// marked by a second key.
func encode(md metadata.MD, key string, values []string) {
	if len(values) == 0 {
		return
	}
	if !needsEscape(values) {
		md[key] = append([]string(nil), values...)
		return
	}
	escaped := make([]string, len(values))
	for i, v := range values {
		escaped[i] = url.QueryEscape(v)
	}
	md[key] = escaped
	md[key+suffixEncoded] = []string{"1"}
}

func needsEscape(values []string) bool {
	return containsFunc(values, func(v string) bool {
		return strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' })
	})
}

func containsFunc(values []string, f func(string) bool) bool {
	for _, v := range values {
		if f(v) {
			return true
		}
	}
	return false
}

// decode is the inverse of encode.
func decode(md metadata.MD, key string) ([]string, error) {
	values := md.Get(key)
	if ok, _ := strconv.ParseBool(first(md, key+suffixEncoded)); !ok {
		return values, nil
	}
	out := make([]string, len(values))
	for i, v := range values {
		s, err := url.QueryUnescape(v)
		if err != nil {
			return nil, fmt.Errorf("metadata %s: %w", key, err)
		}
		out[i] = s
	}
	return out, nil
}

// first returns the first value of key, or "".
func first(md metadata.MD, key string) string {
	if v := md.Get(key); len(v) > 0 {
		return v[0]
	}
	return ""
}

// ProtocolError is a peer that broke the rules of the protocol, or one of our limits.
type ProtocolError struct {
	// Path is the entry it happened at; "" if at none.
	Path string
	// Reason says which rule.
	Reason string
}

func (e *ProtocolError) Error() string {
	if e.Path == "" {
		return "file sync protocol: " + e.Reason
	}
	return fmt.Sprintf("file sync protocol: %q: %s", e.Path, e.Reason)
}

// ChangedError is a file of which the client sent less than it had announced: it shrank or vanished in between, or an older
// client could not read it and does not say so.
type ChangedError struct {
	Path      string
	Want, Got int64 // bytes
}

func (e *ChangedError) Error() string {
	return fmt.Sprintf("%q: the client announced %d bytes and sent %d: the file changed meanwhile, or cannot be read", e.Path, e.Want, e.Got)
}
