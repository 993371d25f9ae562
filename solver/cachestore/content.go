package cachestore

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver"
)

// maxContents bounds the content digests kept of one identity. Beyond it the others are forgotten: they can be taken again.
const maxContents = 4096

// contentKey names a selector's digest of one output.
func contentKey(output int, selector string) string {
	return fmt.Sprintf("%d.%x", output, sha256.Sum256([]byte(selector)))
}

// contents reads the content digests of an identity.
func (s *Store) contents(i solver.Identity) (map[string]digest.Digest, error) {
	row, ok, err := s.rows.get(contents, i[:])
	if err != nil || !ok {
		return nil, err
	}
	_, val, err := stamped(row)
	var all map[string]digest.Digest
	if err == nil {
		err = json.Unmarshal(val, &all)
	}
	if err != nil {
		return nil, s.damaged(contents, i[:], err)
	}
	return all, nil
}

// encodeContents adds one digest. all is not changed.
func encodeContents(all map[string]digest.Digest, key string, d digest.Digest) []byte {
	next := map[string]digest.Digest{}
	if len(all) < maxContents {
		maps.Copy(next, all)
	}
	next[key] = d
	dt, err := json.Marshal(next)
	if err != nil {
		panic(err) // strings only
	}
	return dt
}
