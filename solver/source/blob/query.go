package blob

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"unicode"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/source"
)

const (
	registryScheme = "docker-image+blob"
	layoutScheme   = "oci-layout+blob"
	defaultPerm    = 0o600
	permBits       = 0o7777
)

// query is a request that makes sense.
type query struct {
	identifier string
	// ref is the repository with the digest.
	ref    string
	digest digest.Digest
	// store is the client's content store to read from; "" is a registry.
	store    string
	filename string
	perm     uint32
	uid, gid uint32
}

func parse(r source.Request) (*query, error) {
	scheme, rest, _ := strings.Cut(r.Identifier, "://")
	if scheme != registryScheme && scheme != layoutScheme {
		return nil, errors.New("not a reference to a blob")
	}
	named, err := reference.ParseNormalizedNamed(rest)
	if err != nil {
		return nil, err
	}
	digested, ok := named.(reference.Canonical)
	if !ok {
		return nil, fmt.Errorf("reference %q must have digest", rest)
	}
	if _, tagged := named.(reference.Tagged); tagged {
		return nil, fmt.Errorf("reference %q to a blob must have no tag", rest)
	}
	q := &query{identifier: r.Identifier, ref: named.String(), digest: digested.Digest(), perm: defaultPerm}
	for k, v := range r.Attrs {
		if err := q.set(k, v); err != nil {
			return nil, fmt.Errorf("attribute %s: %w", k, err)
		}
	}
	if q.filename == "" {
		q.filename = q.digest.Encoded()
	}
	switch {
	case scheme == registryScheme:
		q.store = ""
	case q.store == "":
		return nil, errors.New("a blob of an OCI layout takes the attribute " + pb.AttrOCILayoutStoreID)
	}
	return q, nil
}

func (q *query) set(k, v string) (err error) {
	switch k {
	case pb.AttrHTTPFilename:
		if v != "" {
			q.filename, err = safeName(v)
		}
	case pb.AttrHTTPPerm:
		var perm uint32
		if perm, err = number(v); err == nil && perm != 0 {
			q.perm = perm & permBits
		}
	case pb.AttrHTTPUID:
		q.uid, err = number(v)
	case pb.AttrHTTPGID:
		q.gid, err = number(v)
	case pb.AttrOCILayoutStoreID:
		q.store = v
	}
	return err
}

func number(v string) (uint32, error) {
	n, err := strconv.ParseUint(v, 0, 32)
	return uint32(n), err
}

// safeName is the last element of a path, if that can be a file's.
func safeName(s string) (string, error) {
	name := path.Base(s)
	if name == "." || name == ".." || name == "/" || len(name) > 255 || strings.ContainsFunc(name, unicode.IsControl) {
		return "", fmt.Errorf("%.300q is no name for a file", s)
	}
	return name, nil
}
