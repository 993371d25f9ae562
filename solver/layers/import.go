package layers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/layers/blob"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"golang.org/x/sys/unix"
)

// Import makes a blob layer from an uncompressed tar, which it reads to its end. With o.Want set and another diffID found, the
// error is a [DigestMismatchError]; if the wanted layer is here already, the tar is read and forgotten.
func (s *Store) Import(ctx context.Context, tar io.Reader, o ImportOptions) (*Ref, error) {
	done, err := s.begin()
	if err != nil {
		return nil, fmt.Errorf("import layer: %w", err)
	}
	defer done()
	if o.Want != "" {
		if err := o.Want.Validate(); err != nil {
			return nil, fmt.Errorf("import layer %q: %w", o.Want, err)
		}
		unlock, err := s.writers.Lock(ctx, o.Want)
		if err != nil {
			return nil, fmt.Errorf("import layer %s: %w", o.Want, err)
		}
		defer unlock()
		if r := s.present(o); r != nil {
			if _, err := io.Copy(io.Discard, &contextReader{ctx, tar}); err != nil {
				return nil, errors.Join(fmt.Errorf("import layer %s: read to the end: %w", o.Want, err), r.Release())
			}
			return r, nil
		}
	}
	r, err := s.writeBlob(ctx, o, func(f *os.File, res *reservation) (blob.Summary, error) {
		return blob.Index(ctx, &reservingReader{&contextReader{ctx, tar}, ctx, res}, f, blob.Limits{})
	})
	if err != nil {
		return nil, fmt.Errorf("import layer: %w", err)
	}
	return r, nil
}

// Pack makes a blob layer from entries, in one pass. Equal entries give equal bytes on every host.
func (s *Store) Pack(ctx context.Context, src fstree.Source, o ImportOptions) (*Ref, error) {
	done, err := s.begin()
	if err != nil {
		return nil, fmt.Errorf("pack layer: %w", err)
	}
	defer done()
	o.Want = ""
	r, err := s.writeBlob(ctx, o, func(f *os.File, res *reservation) (blob.Summary, error) {
		return blob.Pack(ctx, &reservingSource{src, res}, f)
	})
	if err != nil {
		return nil, fmt.Errorf("pack layer: %w", err)
	}
	return r, nil
}

// present takes hold of the blob layer o.Want if its bytes are here.
func (s *Store) present(o ImportOptions) *Ref {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.layers[ID(o.Want)]
	if l == nil || !s.hasBlob(l) {
		return nil
	}
	s.adopt(l, o)
	return s.hold([]*layer{l}, 2)
}

// hasBlob says whether the blob of l is here, also on disk. It is called under mu.
func (s *Store) hasBlob(l *layer) bool {
	if !l.HasBlob {
		return false
	}
	if _, err := os.Lstat(s.at.blob(l.DiffID)); os.IsNotExist(err) {
		s.dropBlob(l) // somebody took it away; what follows puts it back
		return false
	}
	return true
}

// adopt lets a layer that is found again have what was asked of a new one. It is called under mu.
func (s *Store) adopt(l *layer, o ImportOptions) {
	if l.Derived || l.Labels == (Labels{}) {
		l.Labels = o.Labels
		l.Parents = o.Parents
	}
	l.Derived = false
	s.use(l, s.now())
}

// writeBlob lets write fill a new blob file and makes a layer of it.
func (s *Store) writeBlob(ctx context.Context, o ImportOptions, write func(*os.File, *reservation) (blob.Summary, error)) (*Ref, error) {
	res := s.newReservation()
	defer res.end()
	b, err := s.newBlob(ctx, res, write)
	if err != nil {
		return nil, err
	}
	defer b.discard()
	if o.Want != "" && b.sum.DiffID != o.Want {
		return nil, &DigestMismatchError{What: "diffID", Want: o.Want, Got: b.sum.DiffID}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	l, err := s.publish(b, o)
	if err != nil {
		return nil, err
	}
	return s.hold([]*layer{l}, 2), nil
}

// newBlobFile is a whole blob that has no final name yet.
type newBlobFile struct {
	path string
	sum  blob.Summary
	size int64 // on disk
}

// discard removes the file, if it was not published.
func (b *newBlobFile) discard() {
	if b.path != "" {
		_ = os.Remove(b.path) // what stays is removed at the next start
	}
}

// newBlob writes a blob under a temporary name. The kernel is told to begin writing it to the disk, but not waited for: that
// would have every step wait for all that was written before, by whomever. Until settleDisk made sure of it, the record says in
// which boot it was written, and a blob that may have been torn by a power cut is dropped.
func (s *Store) newBlob(ctx context.Context, res *reservation, write func(*os.File, *reservation) (blob.Summary, error)) (*newBlobFile, error) {
	f, err := os.OpenFile(filepath.Join(s.at.tmp(), newName()), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	b := &newBlobFile{path: f.Name()}
	b.sum, err = write(f, res)
	if err == nil {
		err = f.Chmod(0o400)
	}
	if err == nil {
		err = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
		if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
			err = nil // only a hint
		}
	}
	if err == nil {
		info, serr := f.Stat()
		if err = serr; err == nil {
			b.size = allocated(info)
		}
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		b.discard()
		return nil, err
	}
	return b, nil
}

// publish gives a blob its final name and a place in the index, or finds that it has them. It is called under mu.
func (s *Store) publish(b *newBlobFile, o ImportOptions) (*layer, error) {
	id := ID(b.sum.DiffID)
	now := s.now()
	l := s.layers[id]
	if l == nil {
		l = &layer{record: record{ID: id, Kind: Blob, DiffID: b.sum.DiffID, Labels: o.Labels, Parents: o.Parents, Created: now}}
	} else {
		s.adopt(l, o)
		if s.hasBlob(l) {
			return l, nil
		}
	}
	if err := s.place(b, l.DiffID); err != nil {
		return nil, err
	}
	l.Kind = Blob
	l.HasBlob, l.BlobSize = true, b.size
	l.Empty, l.Odd = b.sum.Empty, b.sum.HasImplied || b.sum.HasWhiteouts
	l.Boot = s.boot
	l.LastUsed = now
	l.Retired = false
	s.layers[id] = l
	s.used += l.BlobSize
	s.unsynced[l] = struct{}{}
	s.save(l, true)
	return l, nil
}

func (s *Store) place(b *newBlobFile, d digest.Digest) error {
	to := s.at.blob(d)
	err := os.Rename(b.path, to)
	if os.IsNotExist(err) {
		if err = os.MkdirAll(filepath.Dir(to), 0o711); err == nil {
			err = os.Rename(b.path, to)
		}
	}
	if err != nil {
		return fmt.Errorf("publish %s: %w", d, err)
	}
	b.path = ""
	return nil
}

// contextReader ends reading when its context does. A reader that blocks is its owner's to wake.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}
