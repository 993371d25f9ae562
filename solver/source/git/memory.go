package git

import (
	"github.com/slipwaybuild/slipway/solver/layers"
	bolt "go.etcd.io/bbolt"
)

// memory keeps, in a bucket of the store's index, which layer was made of which checkout.
type memory struct{ db *bolt.DB }

var bucket = []byte("source.git")

// maxRemembered is how many checkouts are remembered; with more, all are forgotten, which costs a checkout each.
const maxRemembered = 50_000

func openMemory(db *bolt.DB) (*memory, error) {
	return &memory{db}, db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucket)
		if err != nil || b.Stats().KeyN <= maxRemembered {
			return err
		}
		if err := tx.DeleteBucket(bucket); err != nil {
			return err
		}
		_, err = tx.CreateBucket(bucket)
		return err
	})
}

func (m *memory) get(key string) (id layers.ID, err error) {
	err = m.db.View(func(tx *bolt.Tx) error {
		id = layers.ID(tx.Bucket(bucket).Get([]byte(key)))
		return nil
	})
	return id, err
}

func (m *memory) put(key string, id layers.ID) error {
	return m.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucket).Put([]byte(key), []byte(id)) })
}
