package local

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/slipwaybuild/slipway/session/samehost"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// hostFile is an entry of a directory on this host.
type hostFile struct {
	fstree.Entry
	state samehost.State // of a regular file that was digested
	sum   [sha256.Size]byte
	// kept is where in the spool the contents lie that were digested, plus one; 0 if they are read again.
	kept int64
}

func (f *hostFile) hasContent() bool { return f.IsRegular() && f.Hardlink == "" }

// scan looks at a directory: it lists what is selected and digests the files that are not known already. What had to be read, and
// is small, is kept in the spool: who copies it next need not open the file again, nor mind if it changed.
type scan struct {
	dir      *samehost.Dir
	table    *sumTable
	trust    bool // what the table says
	spool    *spool
	limits   int // entries
	progress func(int64)

	files  []hostFile
	unread []unread
}

// unread is a file to digest.
type unread struct {
	at    int // in files
	seen  samehost.State
	plain bool
}

func (s *scan) run(ctx context.Context, sel samehost.Selection) error {
	if s.trust {
		sel.Plain = func(st samehost.State) bool {
			f, ok := s.table.find(st)
			return ok && f.plain
		}
	}
	if err := s.dir.Select(ctx, sel, s.add); err != nil {
		return err
	}
	return s.digest(ctx)
}

func (s *scan) add(e samehost.Entry) error {
	if len(s.files) >= s.limits {
		return fmt.Errorf("more than %d entries", s.limits)
	}
	f := hostFile{Entry: entry(e.Stat)}
	if f.hasContent() {
		known, ok := fileSum{}, false
		if s.trust {
			known, ok = s.table.find(e.State)
		}
		if ok {
			f.sum, f.state = known.sum, e.State
		} else {
			s.unread = append(s.unread, unread{len(s.files), e.State, e.Plain})
		}
	}
	s.files = append(s.files, f)
	return nil
}

// digestBatch is how many files are digested by one function that acts as the client.
const digestBatch = 64

func (s *scan) digest(ctx context.Context) error {
	var next atomic.Int64
	batches := slices.Collect(slices.Chunk(s.unread, digestBatch))
	g, ctx := errgroup.WithContext(ctx)
	for range min(s.dir.Parallel(), len(batches)) {
		g.Go(func() error {
			buf := make([]byte, readSize)
			for {
				n := int(next.Add(1)) - 1
				if n >= len(batches) {
					return nil
				}
				err := s.dir.Do(ctx, func(r samehost.Reader) error {
					for _, u := range batches[n] {
						if ctx.Err() != nil {
							return context.Cause(ctx)
						}
						if err := s.read(r, u, buf); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

const (
	// readSize is how much of a file is read at a time.
	readSize = 256 << 10
	// tries is how often a file is read that changes meanwhile.
	tries = 3
)

// read digests one file as it is now, which is what it counts as, whatever it was when it was listed.
func (s *scan) read(r samehost.Reader, u unread, buf []byte) error {
	f := &s.files[u.at]
	for range tries {
		same, err := s.readOnce(r, f, u, buf)
		if same || err != nil {
			return err
		}
	}
	return fmt.Errorf("%q: it keeps changing while it is read", f.Path)
}

func (s *scan) readOnce(r samehost.Reader, f *hostFile, u unread, buf []byte) (same bool, err error) {
	now := time.Now().UnixNano()
	fd, before, err := r.Open(f.Path)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	h := sha256.New()
	var n int64
	for {
		m, err := pread(fd, buf, n)
		if err != nil {
			return false, fmt.Errorf("read %q: %w", f.Path, err)
		}
		if m == 0 {
			break
		}
		h.Write(buf[:m])
		n += int64(m)
		if m < len(buf) && n >= before.Size {
			break // the rest of the check is the state's
		}
	}
	after, err := samehost.StateOf(fd)
	if err != nil || after != before || n != after.Size {
		return false, err
	}
	h.Sum(f.sum[:0])
	f.Size, f.state = n, after
	if u.seen == after {
		if after.Settled(now) {
			s.table.put(after, u.plain, f.sum)
		}
	} else {
		f.ModTime = time.Unix(0, after.Mtime)
	}
	s.progress(n)
	if n > 0 && n <= int64(len(buf)) {
		f.kept = s.spool.keep(buf[:n])
	}
	return true, nil
}

// pread reads as much as there is, up to len(b).
func pread(fd int, b []byte, off int64) (n int, err error) {
	for n < len(b) {
		m, err := unix.Pread(fd, b[n:], off+int64(n))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return n, err
		}
		if m == 0 {
			break
		}
		n += m
	}
	return n, nil
}
