package http

import (
	// A checksum may be any of these.
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"unicode"

	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/session/upload"
	"github.com/slipwaybuild/slipway/solver/source"
)

// query is a request that makes sense.
type query struct {
	url *url.URL
	// shown is the URL for people: without credentials.
	shown      string
	checksum   digest.Digest // "" if none is wanted
	filename   string        // "" for what the server or the URL says
	perm       uint32
	uid, gid   uint32
	authSecret string
	header     http.Header
	signature  *signature
}

// signature is an armoured detached OpenPGP signature to be checked.
type signature struct{ pubKey, sig []byte }

const defaultPerm = 0o600

func parse(r source.Request) (*query, error) {
	u, err := url.Parse(r.Identifier)
	if err != nil {
		return nil, fmt.Errorf("URL: %w", bare(err)) // the URL itself may hold credentials
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("%s: not an http or https URL", shown(u))
	}
	u.Fragment, u.RawFragment = "", ""
	q := &query{url: u, shown: shown(u), perm: defaultPerm, header: http.Header{}}
	for k, v := range r.Attrs {
		if err := q.set(k, v); err != nil {
			return nil, fmt.Errorf("%s: attribute %s: %w", q.shown, k, err)
		}
	}
	if q.signature != nil && (len(q.signature.pubKey) == 0 || len(q.signature.sig) == 0) {
		return nil, fmt.Errorf("%s: checking a signature takes both the signature and a public key", q.shown)
	}
	return q, nil
}

func (q *query) set(k, v string) (err error) {
	switch k {
	case pb.AttrHTTPChecksum:
		q.checksum, err = digest.Parse(v)
	case pb.AttrHTTPFilename:
		q.filename = v
	case pb.AttrHTTPPerm:
		var perm uint32
		if perm, err = number(v); err == nil && perm != 0 {
			q.perm = perm & 0o7777
		}
	case pb.AttrHTTPUID:
		q.uid, err = number(v)
	case pb.AttrHTTPGID:
		q.gid, err = number(v)
	case pb.AttrHTTPAuthHeaderSecret:
		q.authSecret = v
	case pb.AttrHTTPSignatureVerifyPubKey:
		q.sign().pubKey = []byte(v)
	case pb.AttrHTTPSignatureVerify:
		q.sign().sig = []byte(v)
	default:
		q.setHeader(k, v)
	}
	return err
}

func (q *query) sign() *signature {
	if q.signature == nil {
		q.signature = &signature{}
	}
	return q.signature
}

// setHeader takes the headers that BuildKit takes; others are dropped, so that a Dockerfile cannot speak for the daemon.
func (q *query) setHeader(k, v string) {
	name, ok := strings.CutPrefix(k, pb.AttrHTTPHeaderPrefix)
	if !ok {
		return
	}
	if name = http.CanonicalHeaderKey(name); name == "Accept" || name == "User-Agent" {
		q.header.Set(name, v)
	}
}

func number(v string) (uint32, error) {
	n, err := strconv.ParseUint(v, 0, 32)
	return uint32(n), err
}

// shown is a URL without user and password.
func shown(u *url.URL) string {
	c := *u
	c.User = nil
	return c.String()
}

// upload tells whether the URL names an upload in a session.
func (q *query) upload() bool { return q.url.Host == upload.Host }

// key says what is remembered together: all that the layer depends on, or what the server may answer by.
func (q *query) key() string {
	b, _ := json.Marshal([]any{q.url.String(), q.checksum, q.filename, q.perm, q.uid, q.gid, q.authSecret, q.header}) // plain data
	return digest.FromBytes(b).String()
}

// sumKey is the key of a file whose checksum is known, wherever it comes from.
func (q *query) sumKey() string {
	b, _ := json.Marshal([]any{q.checksum, q.staticName(), q.perm, q.uid, q.gid}) // plain data
	return "sum:" + digest.FromBytes(b).String()
}

// staticName is the file's name as far as it can be told without the server.
func (q *query) staticName() string {
	if q.filename != "" {
		return safeName(q.filename)
	}
	return safeName(path.Base(q.url.Path))
}

// name is the file's name when the server has spoken.
func (q *query) name(h http.Header) string {
	if q.filename == "" {
		_, params, err := mime.ParseMediaType(h.Get("Content-Disposition"))
		if f := params["filename"]; err == nil && f != "" && !strings.HasSuffix(f, "/") {
			return safeName(f)
		}
	}
	return q.staticName()
}

// safeName is the last element of a path, or "download" if it is no name.
func safeName(s string) string {
	name := path.Base(strings.TrimSpace(s))
	if name == "." || name == ".." || name == "/" || len(name) > 255 || strings.ContainsFunc(name, unicode.IsControl) {
		return "download"
	}
	return name
}
