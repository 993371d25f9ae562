package history

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	bolt "go.etcd.io/bbolt"
)

// A note is a file with a record that is not in the database yet. The page cache keeps it if the daemon dies, so that no build waits for
// the disk to end; a moment later all notes go into the database in one transaction. What the host's end leaves of a note is believed
// only if all blobs of the record are whole.

// settleDelay is how long notes gather.
const settleDelay = 100 * time.Millisecond

// notedRecord is what is in the file.
type notedRecord struct {
	Record  []byte
	Blobs   []string
	Outcome string
}

func (d *database) notePath(ref string) string {
	sum := sha256.Sum256([]byte(ref))
	return filepath.Join(d.notes, hex.EncodeToString(sum[:16]))
}

// note keeps a record; settle brings it to disk. It is read as if it were there.
func (d *database) note(s saved) error {
	record, err := s.record.MarshalVT()
	if err != nil {
		return err
	}
	b, err := json.Marshal(notedRecord{Record: record, Blobs: s.blobs, Outcome: s.outcome})
	if err != nil {
		return err
	}
	path := d.notePath(s.record.Ref)
	if err := os.WriteFile(path+newNote, b, 0o600); err != nil {
		return err
	}
	if err := os.Rename(path+newNote, path); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.noted[s.record.Ref] = &s
	return nil
}

// newNote ends the names of notes that are being written.
const newNote = ".new"

// settle puts all notes into the database, after sync has brought their blobs to disk.
func (d *database) settle(sync func(blobs []string) error) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	todo := d.allNoted()
	if len(todo) == 0 {
		return nil
	}
	var blobs []string
	for _, s := range todo {
		blobs = append(blobs, s.blobs...)
	}
	if err := sync(blobs); err != nil {
		return err
	}
	err := d.db.Update(func(tx *bolt.Tx) error {
		var errs []error
		for _, s := range todo {
			errs = append(errs, putRecord(tx, *s))
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, s := range todo {
		if ref := s.record.Ref; d.noted[ref] == s {
			delete(d.noted, ref)
			errs = append(errs, os.Remove(d.notePath(ref)))
		}
	}
	return errors.Join(errs...)
}

// allNoted lists the notes.
func (d *database) allNoted() (list []*saved) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.noted {
		list = append(list, s)
	}
	return list
}

// notedOf returns what is noted of a build; nil if nothing is.
func (d *database) notedOf(ref string) *saved {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.noted[ref]
}

// unnote removes notes: something newer is in the database, or nothing is to be there.
func (d *database) unnote(refs ...string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, ref := range refs {
		if d.noted[ref] != nil {
			delete(d.noted, ref)
			errs = append(errs, os.Remove(d.notePath(ref)))
		}
	}
	return errors.Join(errs...)
}

// readNotes reads what an earlier daemon noted last. What cannot be read is told of and removed.
func (d *database) readNotes() (bad []error, err error) {
	if err := os.MkdirAll(d.notes, 0o700); err != nil {
		return nil, err
	}
	dir, err := os.ReadDir(d.notes)
	if err != nil {
		return nil, err
	}
	for _, f := range dir {
		path := filepath.Join(d.notes, f.Name())
		s, err := d.readNote(path)
		if err == nil {
			d.noted[s.record.Ref] = s
			continue
		}
		bad = append(bad, err)
		if err := os.Remove(path); err != nil {
			return bad, err
		}
	}
	return bad, nil
}

func (d *database) readNote(path string) (*saved, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var n notedRecord
	r := &controlapi.BuildHistoryRecord{}
	if err := errors.Join(json.Unmarshal(b, &n), r.UnmarshalVT(n.Record)); err != nil {
		return nil, fmt.Errorf("read note %s of a build that ended: %w", path, err)
	}
	if d.notePath(r.Ref) != path {
		return nil, fmt.Errorf("note %s of a build that ended is not whole", path)
	}
	return &saved{record: r, blobs: n.Blobs, outcome: n.Outcome}, nil
}

// settleLater brings notes to disk without anybody waiting for it. It is called under mu.
func (s *Store) settleLater() {
	if s.settling || s.closed {
		return
	}
	s.settling = true
	s.work.Go(func() {
		select {
		case <-time.After(settleDelay):
		case <-s.closing:
		}
		s.mu.Lock()
		s.settling = false
		s.mu.Unlock()
		if err := s.settle(); err != nil {
			s.log.Warn("write records of builds", "error", err)
		}
	})
}

// settle brings notes to disk.
func (s *Store) settle() error {
	return s.db.settle(func(list []string) error { return s.blobs.sync(digests(list)...) })
}

// put writes a record and its blobs to disk.
func (s *Store) put(kept saved) error {
	if err := s.blobs.sync(digests(kept.blobs)...); err != nil {
		return err
	}
	return s.db.put(kept)
}

// recoverNotes takes over what an earlier daemon noted, but for records of which the host's end took a part.
func (s *Store) recoverNotes(ctx context.Context) error {
	for _, kept := range s.db.allNoted() {
		for _, d := range digests(kept.blobs) {
			if s.blobs.whole(d) {
				s.blobs.distrust(d)
				continue
			}
			s.log.WarnContext(ctx, "forget a build whose record is not whole", "ref", kept.record.Ref, "missing", d)
			if err := s.db.unnote(kept.record.Ref); err != nil {
				return err
			}
			break
		}
	}
	return s.settle()
}
