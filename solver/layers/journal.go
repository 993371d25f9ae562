package layers

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
)

// The buckets of the index that are ours.
const (
	bucketLayers  = "layers"
	bucketVolumes = "layers.volumes"
	bucketHolds   = "layers.holds"
)

// journal writes changes of the in-memory index to the database behind the backs of those who make them: a transaction waits
// for the disk, a build should not. What is put while one transaction runs goes into the next. A crash loses the last changes,
// which opening the store makes good from what is on disk; who cannot afford that calls flush.
type journal struct {
	db   *bolt.DB
	log  *slog.Logger
	wake chan struct{} // there is something urgent
	now  chan struct{} // somebody waits for it
	done chan struct{}

	mu      sync.Mutex
	pending map[entryKey][]byte // nil deletes
	urgent  bool                // something pending is
	waiting []chan error
	closing bool
}

type entryKey struct{ bucket, key string }

// journalDelay gathers changes. Every transaction makes the file system commit its own journal, which whoever creates or renames
// files at the moment has to wait for.
const journalDelay = 200 * time.Millisecond

func newJournal(db *bolt.DB, log *slog.Logger) *journal {
	j := &journal{db: db, log: log, wake: make(chan struct{}, 1), now: make(chan struct{}, 1), done: make(chan struct{}), pending: map[entryKey][]byte{}}
	go j.run()
	return j
}

// put notes a change. One that is not urgent is written along with the next urgent one.
func (j *journal) put(bucket, key string, value []byte, urgent bool) {
	j.mu.Lock()
	j.pending[entryKey{bucket, key}] = value
	j.urgent = j.urgent || urgent
	j.mu.Unlock()
	if urgent {
		signal(j.wake)
	}
}

// kick has written soon what was put and not urgent.
func (j *journal) kick() {
	j.mu.Lock()
	j.urgent = len(j.pending) > 0
	j.mu.Unlock()
	signal(j.wake)
}

// isUrgent tells whether something waits to be written that a crash should not lose.
func (j *journal) isUrgent() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.urgent
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// flush returns once all that was put before is safe on disk.
func (j *journal) flush(ctx context.Context) error {
	c := make(chan error, 1)
	j.mu.Lock()
	if j.closing {
		j.mu.Unlock()
		return ErrClosed
	}
	j.waiting = append(j.waiting, c)
	j.mu.Unlock()
	signal(j.now)
	select {
	case err := <-c:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// close writes what is left and ends the journal.
func (j *journal) close() error {
	c := make(chan error, 1)
	j.mu.Lock()
	j.closing = true
	j.waiting = append(j.waiting, c)
	j.mu.Unlock()
	signal(j.now)
	<-j.done
	return <-c
}

func (j *journal) run() {
	defer close(j.done)
	for {
		j.wait()
		j.mu.Lock()
		batch, waiting, last := j.pending, j.waiting, j.closing
		j.pending, j.waiting, j.urgent = map[entryKey][]byte{}, nil, false
		j.mu.Unlock()
		err := j.write(batch)
		if err != nil {
			j.log.Error("layer index is behind", "error", err)
			j.restore(batch)
		}
		for _, c := range waiting {
			c <- err
		}
		if last {
			return
		}
	}
}

// wait returns when it is time to write.
func (j *journal) wait() {
	select {
	case <-j.now:
		return
	case <-j.wake:
	}
	t := time.NewTimer(journalDelay)
	defer t.Stop()
	select {
	case <-j.now:
	case <-t.C:
	}
}

// restore keeps what could not be written for the next try, unless it was overtaken.
func (j *journal) restore(batch map[entryKey][]byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	maps.Copy(batch, j.pending)
	j.pending, j.urgent = batch, true
}

func (j *journal) write(batch map[entryKey][]byte) error {
	if len(batch) == 0 {
		return nil
	}
	err := j.db.Update(func(tx *bolt.Tx) error {
		for k, v := range batch {
			b, err := tx.CreateBucketIfNotExists([]byte(k.bucket))
			if err != nil {
				return err
			}
			if v == nil {
				err = b.Delete([]byte(k.key))
			} else {
				err = b.Put([]byte(k.key), v)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write layer index: %w", err)
	}
	return nil
}
