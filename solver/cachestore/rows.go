package cachestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
)

// bucket is one of our buckets in the layer store's index.
type bucket uint8

const (
	aliases  bucket = iota // promise → identity
	records                // identity → results
	contents               // identity → content digests of its outputs
	parts                  // identity → what its keys were made of, for explaining
	steps                  // step id → identity made last
	names                  // step name → identity made last
	buckets
)

// The number is the format's version: rows of another version are not read.
func (b bucket) String() string {
	return [...]string{"cache.1.alias", "cache.1.record", "cache.1.content", "cache.1.parts", "cache.1.step", "cache.1.name"}[b]
}

const (
	// gather is how long a write waits for company: a commit costs a disk flush, a build makes dozens of rows.
	gather = 100 * time.Millisecond
	// frontRows is how many rows of each generation stay in memory.
	frontRows = 16 << 10
)

type rowKey struct {
	bucket bucket
	key    string
}

// rows is a table with write-behind. Rows are immutable once put.
type rows struct {
	db  *bolt.DB
	log *slog.Logger

	mu       sync.Mutex
	pending  map[rowKey][]byte // not yet being written; nil is a deletion
	writing  map[rowKey][]byte // being written now
	front    front
	closed   bool
	failed   error         // why the last write did not succeed
	waiters  []chan error  // told when the next write is over
	wake     chan struct{} // there is something to write
	now      chan struct{} // write without waiting for more
	stop     chan struct{}
	finished chan struct{}
}

func openRows(db *bolt.DB, log *slog.Logger) (*rows, error) {
	err := db.Update(func(tx *bolt.Tx) error {
		for b := range buckets {
			if _, err := tx.CreateBucketIfNotExists([]byte(b.String())); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	r := &rows{
		db: db, log: log,
		pending: map[rowKey][]byte{},
		wake:    make(chan struct{}, 1), now: make(chan struct{}, 1),
		stop: make(chan struct{}), finished: make(chan struct{}),
	}
	go r.run()
	return r, nil
}

// get returns a row, which must not be changed.
func (r *rows) get(b bucket, key []byte) ([]byte, bool, error) {
	k := rowKey{b, string(key)}
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil, false, ErrClosed
	}
	val, ok := r.pending[k]
	if !ok {
		val, ok = r.writing[k]
	}
	if !ok {
		val, ok = r.front.get(k)
	}
	r.mu.Unlock()
	if ok {
		return val, val != nil, nil
	}
	err := r.db.View(func(tx *bolt.Tx) error {
		val = bytes.Clone(tx.Bucket([]byte(b.String())).Get(key))
		return nil
	})
	if err != nil || val == nil {
		return nil, false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// A newer row may have been put since. It is found before the front, and replaces what is in it.
	if _, ok := r.pending[k]; !ok {
		if _, ok := r.writing[k]; !ok {
			r.front.put(k, val)
		}
	}
	return val, true, nil
}

// put replaces a row; a nil val deletes it. val must not be changed afterwards.
func (r *rows) put(b bucket, key, val []byte) error {
	k := rowKey{b, string(key)}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return ErrClosed
	}
	r.pending[k] = val
	r.front.put(k, val)
	signal(r.wake)
	return nil
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run writes what is pending until stopped.
func (r *rows) run() {
	defer close(r.finished)
	for {
		select {
		case <-r.wake:
		case <-r.stop:
			r.write()
			return
		}
		t := time.NewTimer(gather)
		select {
		case <-t.C:
		case <-r.now:
		case <-r.stop:
		}
		t.Stop()
		r.write()
	}
}

// write commits what is pending in one transaction. Only run calls it.
func (r *rows) write() {
	r.mu.Lock()
	r.writing, r.pending = r.pending, map[rowKey][]byte{}
	waiters := r.waiters
	r.waiters = nil
	batch := r.writing
	r.mu.Unlock()

	var err error
	if len(batch) > 0 {
		err = r.db.Update(func(tx *bolt.Tx) error { return apply(tx, batch) })
	}

	r.mu.Lock()
	r.writing = nil
	r.failed = err
	if err != nil {
		r.log.Error("write cache", "rows", len(batch), "err", err)
		if !r.closed {
			// Keep what could not be written, unless it is newer by now: the disk may have room again when the next row comes.
			maps.Copy(batch, r.pending)
			r.pending = batch
		}
	}
	r.mu.Unlock()
	for _, w := range waiters {
		w <- err
	}
}

func apply(tx *bolt.Tx, batch map[rowKey][]byte) error {
	for k, val := range batch {
		b := tx.Bucket([]byte(k.bucket.String()))
		var err error
		if val == nil {
			err = b.Delete([]byte(k.key))
		} else {
			err = b.Put([]byte(k.key), val)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", k.bucket, err)
		}
	}
	return nil
}

// flush returns when everything put before is on disk.
func (r *rows) flush(ctx context.Context) error {
	w := make(chan error, 1)
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return ErrClosed
	}
	r.waiters = append(r.waiters, w)
	r.mu.Unlock()
	signal(r.wake)
	signal(r.now)
	select {
	case err := <-w:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (r *rows) close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return ErrClosed
	}
	r.closed = true
	r.mu.Unlock()
	close(r.stop)
	<-r.finished
	if r.failed != nil {
		return errors.Join(errors.New("the cache was not written"), r.failed)
	}
	return nil
}

// front keeps rows that were used lately, in two generations: what is not asked for while one generation fills is forgotten
// with the other. It costs no list and no clock.
type front struct{ young, old map[rowKey][]byte }

func (f *front) get(k rowKey) ([]byte, bool) {
	val, ok := f.young[k]
	if !ok {
		if val, ok = f.old[k]; ok {
			f.put(k, val)
		}
	}
	return val, ok
}

func (f *front) put(k rowKey, val []byte) {
	if f.young == nil || len(f.young) >= frontRows {
		f.old, f.young = f.young, make(map[rowKey][]byte)
	}
	f.young[k] = val
}
