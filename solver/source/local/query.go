package local

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/patternmatcher"
	"github.com/slipwaybuild/slipway/solver/source"
)

// query is a request that makes sense.
type query struct {
	name    string
	session string // "" is any of the build's
	unique  string
	hint    string // of which directory it is; part of where the manifest is kept
	include []string
	exclude []string
	follow  []string
	// differ is "none" for a client whose files should all be transferred again.
	differ string
	// metadata leaves out the contents of files but those that except matches, and lists all entries in one file instead.
	metadata bool
	except   []string
	matcher  *patternmatcher.PatternMatcher
}

func parse(r source.Request) (*query, error) {
	name, ok := strings.CutPrefix(r.Identifier, "local://")
	if !ok {
		return nil, fmt.Errorf("identifier does not start with local://")
	}
	q := &query{name: name}
	for k, v := range r.Attrs {
		if err := q.set(k, v); err != nil {
			return nil, fmt.Errorf("attribute %s: %w", k, err)
		}
	}
	if prefix, id, ok := strings.Cut(q.session, ":"); ok {
		// A client that serves several builds with one session tells their directories apart like this.
		q.name, q.session = prefix+"-"+q.name, id
	}
	if len(q.except) > 0 {
		m, err := patternmatcher.New(q.except)
		if err != nil {
			return nil, fmt.Errorf("attribute %s: %w", pb.AttrMetadataTransferExclude, err)
		}
		q.matcher = m
	}
	return q, nil
}

func (q *query) set(k, v string) (err error) {
	switch k {
	case pb.AttrLocalSessionID:
		q.session = v
	case pb.AttrLocalUniqueID:
		q.unique = v
	case pb.AttrSharedKeyHint:
		q.hint = v
	case pb.AttrIncludePatterns:
		err = json.Unmarshal([]byte(v), &q.include)
	case pb.AttrExcludePatterns:
		err = json.Unmarshal([]byte(v), &q.exclude)
	case pb.AttrFollowPaths:
		err = json.Unmarshal([]byte(v), &q.follow)
	case pb.AttrLocalDiffer:
		if v != "" && v != pb.AttrLocalDifferNone && v != pb.AttrLocalDifferMetadata {
			return fmt.Errorf("unknown value %q", v)
		}
		q.differ = v
	case pb.AttrMetadataTransfer:
		q.metadata, err = strconv.ParseBool(v)
	case pb.AttrMetadataTransferExclude:
		err = json.Unmarshal([]byte(v), &q.except)
	}
	return err // other attributes are other clients' business
}

// key says which requests may share one sync.
func (q *query) key() string {
	return joined("share", q.session, q.unique, q.selection())
}

// memory says which syncs of a client with this shared key remember each other.
func (q *query) memory(sharedKey string) string {
	return joined("memory", q.name, q.hint, sharedKey, q.selection())
}

func (q *query) selection() string {
	return joined("selection", q.name, list(q.include), list(q.exclude), list(q.follow), q.differ, strconv.FormatBool(q.metadata), list(q.except))
}

func list(values []string) string {
	b, _ := json.Marshal(values) // strings always can
	return string(b)
}

// joined digests strings so that no two lists meet.
func joined(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}
