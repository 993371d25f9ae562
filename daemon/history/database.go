package history

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// lockTimeout bounds the wait for the database file: only another process can hold it.
const lockTimeout = 2 * time.Second

// The buckets, all keyed by ref: records, the digests of the blobs each needs, and that of the one that tells what was built.
var (
	recordBucket  = []byte("records")
	blobBucket    = []byte("blobs")
	outcomeBucket = []byte("outcomes")
)

// allBuckets lists them.
func allBuckets() [][]byte { return [][]byte{recordBucket, blobBucket, outcomeBucket} }

// database keeps records on disk. Every change is one transaction, on disk when the call returns, except for notes.
type database struct {
	db    *bolt.DB
	notes string // directory

	writing sync.Mutex // held while db is written: the order of changes is that of the calls

	mu    sync.Mutex
	noted map[string]*saved // by ref; what is in it does not change
}

// saved is a record as it is kept.
type saved struct {
	record  *controlapi.BuildHistoryRecord
	blobs   []string // digests
	outcome string   // digest of the one that tells what was built; "" writes none, and leaves one that is there
}

// openDatabase opens the file and the directory of notes beside it. Notes that cannot be read are told of.
func openDatabase(path, notes string) (_ *database, bad []error, _ error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTimeout, NoFreelistSync: true})
	if err != nil {
		if errors.Is(err, bolterrors.ErrTimeout) {
			err = fmt.Errorf("%s is in use by another process", path)
		}
		return nil, nil, err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range allBuckets() {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	d := &database{db: db, notes: notes, noted: map[string]*saved{}}
	if err == nil {
		bad, err = d.readNotes()
	}
	if err != nil {
		return nil, bad, errors.Join(err, db.Close())
	}
	return d, bad, nil
}

func (d *database) close() error { return d.db.Close() }

// put writes a record.
func (d *database) put(s saved) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if n := d.notedOf(s.record.Ref); n != nil && s.outcome == "" {
		s.outcome = n.outcome
	}
	if err := d.db.Update(func(tx *bolt.Tx) error { return putRecord(tx, s) }); err != nil {
		return err
	}
	return d.unnote(s.record.Ref)
}

func putRecord(tx *bolt.Tx, s saved) error {
	b, err := s.record.MarshalVT()
	if err != nil {
		return err
	}
	key := []byte(s.record.Ref)
	err = errors.Join(
		tx.Bucket(recordBucket).Put(key, b),
		tx.Bucket(blobBucket).Put(key, []byte(strings.Join(s.blobs, "\n"))))
	if s.outcome != "" {
		err = errors.Join(err, tx.Bucket(outcomeBucket).Put(key, []byte(s.outcome)))
	}
	return err
}

// remove forgets builds; those that are not there are no error.
func (d *database) remove(refs ...string) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.unnote(refs...); err != nil {
		return err
	}
	return d.db.Update(func(tx *bolt.Tx) error {
		var errs []error
		for _, ref := range refs {
			for _, name := range allBuckets() {
				errs = append(errs, tx.Bucket(name).Delete([]byte(ref)))
			}
		}
		return errors.Join(errs...)
	})
}

// outcome returns the digest of what tells what a build made, "" if nothing does.
func (d *database) outcome(ref string) (digest string, err error) {
	if n := d.notedOf(ref); n != nil {
		return n.outcome, nil
	}
	err = d.db.View(func(tx *bolt.Tx) error {
		digest = string(tx.Bucket(outcomeBucket).Get([]byte(ref)))
		return nil
	})
	return digest, err
}

// record returns a record, or ErrNotFound.
func (d *database) record(ref string) (*controlapi.BuildHistoryRecord, error) {
	if n := d.notedOf(ref); n != nil {
		return n.record.CloneVT(), nil
	}
	var r *controlapi.BuildHistoryRecord
	err := d.db.View(func(tx *bolt.Tx) (err error) {
		b := tx.Bucket(recordBucket).Get([]byte(ref))
		if b == nil {
			return fmt.Errorf("%w: %s", ErrNotFound, ref)
		}
		r, err = decodeRecord(ref, b)
		return err
	})
	return r, err
}

// records returns all records. Those that cannot be read come as an error each, joined; the others come too.
func (d *database) records() (list []saved, err error) {
	var errs []error
	noted := map[string]bool{}
	for _, s := range d.allNoted() {
		noted[s.record.Ref] = true
		list = append(list, saved{record: s.record.CloneVT(), blobs: s.blobs})
	}
	err = d.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(recordBucket).ForEach(func(k, v []byte) error {
			if noted[string(k)] {
				return nil
			}
			r, err := decodeRecord(string(k), v)
			if err != nil {
				errs = append(errs, &badRecordError{ref: string(k), err: err})
				return nil
			}
			s := saved{record: r}
			if b := tx.Bucket(blobBucket).Get(k); len(b) > 0 {
				s.blobs = strings.Split(string(b), "\n")
			}
			list = append(list, s)
			return nil
		})
	})
	return list, errors.Join(append(errs, err)...)
}

// badRecordError is a record that cannot be read.
type badRecordError struct {
	ref string
	err error
}

func (e *badRecordError) Error() string { return e.err.Error() }
func (e *badRecordError) Unwrap() error { return e.err }

func decodeRecord(ref string, b []byte) (*controlapi.BuildHistoryRecord, error) {
	r := &controlapi.BuildHistoryRecord{}
	if err := r.UnmarshalVT(b); err != nil {
		return nil, fmt.Errorf("read record of build %s: %w", ref, err)
	}
	return r, nil
}
