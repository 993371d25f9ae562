package http

import (
	"encoding/json"
	"slices"
	"sync"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/layers"
	bolt "go.etcd.io/bbolt"
)

// response is what is remembered of a response.
type response struct {
	Layer        layers.ID     `json:"layer"`
	Digest       digest.Digest `json:"digest"`
	Filename     string        `json:"filename"`
	ETag         string        `json:"etag,omitempty"`
	LastModified string        `json:"lastModified,omitempty"` // as the server wrote it
	// Strong says that LastModified alone tells whether the file changed: it was a minute old at least when it was sent.
	Strong bool      `json:"strong,omitempty"`
	Used   time.Time `json:"used"`
}

func (r *response) file() file {
	return file{Digest: r.Digest, Filename: r.Filename, LastModified: parseTime(r.LastModified)}
}

// memory keeps responses in a bucket of the store's index.
type memory struct{ db *bolt.DB }

var bucket = []byte("source.http")

// maxRemembered is how many responses are kept.
const maxRemembered = 10_000

func openMemory(db *bolt.DB) (*memory, error) {
	m := &memory{db}
	return m, db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucket)
		if err != nil {
			return err
		}
		return trim(b)
	})
}

// trim forgets the responses used longest ago.
func trim(b *bolt.Bucket) error {
	type aged struct {
		key  []byte
		used time.Time
	}
	var all []aged
	if err := b.ForEach(func(k, v []byte) error {
		var r response
		_ = json.Unmarshal(v, &r) // what cannot be read is the oldest
		all = append(all, aged{slices.Clone(k), r.Used})
		return nil
	}); err != nil {
		return err
	}
	if len(all) <= maxRemembered {
		return nil
	}
	slices.SortFunc(all, func(a, b aged) int { return b.used.Compare(a.used) })
	for _, e := range all[maxRemembered:] {
		if err := b.Delete(e.key); err != nil {
			return err
		}
	}
	return nil
}

func (m *memory) get(key string) (*response, error) {
	var r *response
	err := m.db.View(func(tx *bolt.Tx) error {
		v := tx.Bucket(bucket).Get([]byte(key))
		if v == nil {
			return nil
		}
		r = &response{}
		return json.Unmarshal(v, r)
	})
	return r, err
}

func (m *memory) put(r *response, keys ...string) error {
	r.Used = time.Now()
	v, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return m.db.Update(func(tx *bolt.Tx) error {
		for _, k := range keys {
			if err := tx.Bucket(bucket).Put([]byte(k), v); err != nil {
				return err
			}
		}
		return nil
	})
}

// uploads remembers what sessions uploaded: a client gives an upload once, and a build may pin it more than once. It holds no
// layers: whoever pinned one does.
type uploads struct {
	mu   sync.Mutex
	seen []uploaded // oldest first
}

type uploaded struct {
	key      string
	sessions []string // of whom the upload can have come
	response response
}

const maxUploads = 256

func (u *uploads) get(key string, sessions []string) *response {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, e := range u.seen {
		if e.key == key && slices.ContainsFunc(sessions, func(id string) bool { return slices.Contains(e.sessions, id) }) {
			r := e.response
			return &r
		}
	}
	return nil
}

func (u *uploads) put(key string, sessions []string, r *response) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.seen) >= maxUploads {
		u.seen = slices.Delete(u.seen, 0, 1)
	}
	u.seen = append(u.seen, uploaded{key, sessions, *r})
}
