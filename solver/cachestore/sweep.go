package cachestore

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Rows of other buckets may outnumber records: a record has an alias for each definition that led to it, and parts and
// contents outlive it.
const perRecord = 4

// Sweep drops records whose layers are gone, and of every kind of row those used least recently beyond the limit. It reads
// in small transactions, so builds go on.
func (s *Store) Sweep(ctx context.Context) error {
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	if err := s.rows.flush(ctx); err != nil {
		return err
	}
	if err := s.sweepLost(ctx); err != nil {
		return fmt.Errorf("sweep cache: %w", err)
	}
	for b := range buckets {
		limit := s.max * perRecord
		if b == records {
			limit = s.max
		}
		if err := s.sweepOld(ctx, b, limit); err != nil {
			return fmt.Errorf("sweep cache: %w", err)
		}
	}
	return s.rows.flush(ctx)
}

// Reset forgets everything.
func (s *Store) Reset(ctx context.Context) error {
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	if err := s.rows.flush(ctx); err != nil {
		return err
	}
	for b := range buckets {
		if err := s.sweepOld(ctx, b, 0); err != nil {
			return fmt.Errorf("reset cache: %w", err)
		}
	}
	return s.rows.flush(ctx)
}

func (s *Store) sweepLost(ctx context.Context) error {
	return s.rows.scan(ctx, records, func(key, row []byte) error {
		_, val, err := stamped(row)
		var stored []storedResult
		if err == nil {
			err = json.Unmarshal(val, &stored)
		}
		if err != nil {
			return s.damaged(records, key, err)
		}
		for _, r := range stored {
			if !s.layers.Cached(r.ids()...) {
				return s.drop([32]byte(key), row)
			}
		}
		return nil
	})
}

// sweepOld deletes the least recently used rows of b beyond limit.
func (s *Store) sweepOld(ctx context.Context, b bucket, limit int) error {
	type seen struct {
		key  string
		used time.Time
	}
	var all []seen
	err := s.rows.scan(ctx, b, func(key, row []byte) error {
		used, _, err := stamped(row)
		if err != nil {
			return s.damaged(b, key, err)
		}
		all = append(all, seen{string(key), used})
		return nil
	})
	if err != nil || len(all) <= limit {
		return err
	}
	slices.SortFunc(all, func(x, y seen) int { return cmp.Or(x.used.Compare(y.used), cmp.Compare(x.key, y.key)) })
	for _, old := range all[:len(all)-limit] {
		if err := s.rows.put(b, []byte(old.key), nil); err != nil {
			return err
		}
	}
	return nil
}

// scan calls f for the rows of b that are on disk. f runs outside of any transaction and may put rows.
func (r *rows) scan(ctx context.Context, b bucket, f func(key, row []byte) error) error {
	const step = 1000
	type row struct{ key, val []byte }
	var after []byte
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		var batch []row
		err := r.db.View(func(tx *bolt.Tx) error {
			c := tx.Bucket([]byte(b.String())).Cursor()
			k, v := c.Seek(after)
			if after != nil && bytes.Equal(k, after) {
				k, v = c.Next()
			}
			for ; k != nil && len(batch) < step; k, v = c.Next() {
				batch = append(batch, row{bytes.Clone(k), bytes.Clone(v)})
			}
			return nil
		})
		if err != nil || len(batch) == 0 {
			return err
		}
		for _, x := range batch {
			if err := f(x.key, x.val); err != nil {
				return err
			}
		}
		after = batch[len(batch)-1].key
	}
}
