package local

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/slipwaybuild/slipway/session/samehost"
)

// sums remember the digests of files in directories of this host, one table per directory and who reads it, in memory and on
// disk. Whoever finds a file in a table was able to read it when it was in that very state, owner and mode included.
type sums struct {
	dir string // where they are kept; "" keeps them in memory only

	mu     sync.Mutex // guards what follows
	tables map[string]*sumTable
	held   int // entries of all tables
}

// Bounds of what is remembered. A table that was not used for long is read from the disk again, or its files are.
const (
	sumsInMemory = 1 << 18 // entries
	sumsOnDisk   = 128 << 20
	sumFiles     = 256
)

func openSums(dir string) (*sums, error) {
	if dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	return &sums{dir: dir, tables: map[string]*sumTable{}}, nil
}

// sumTable belongs to one directory. Its methods are safe for concurrent use.
type sumTable struct {
	file string // on disk; "" for none
	used time.Time

	mu      sync.Mutex // guards what follows
	entries map[fileID]fileSum
	round   uint32 // counts uses; entries that were not seen for some go
	changed bool
}

type fileID struct{ dev, ino uint64 }

// fileSum is what is known of a file in a state.
type fileSum struct {
	size, mtime, ctime int64
	round              uint32
	plain              bool // it has no extended attributes
	sum                [sha256.Size]byte
}

// of returns the table of a directory, empty if nothing is known.
func (s *sums) of(key string) (*sumTable, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tables[key]
	var err error
	if t == nil {
		t = &sumTable{entries: map[fileID]fileSum{}}
		if s.dir != "" {
			name := sha256.Sum256([]byte(key))
			t.file = filepath.Join(s.dir, hex.EncodeToString(name[:16]))
			err = t.load()
		}
		s.tables[key] = t
		s.held += len(t.entries)
	}
	t.used = time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.round++
	return t, err
}

// done writes what is new, and forgets what was used longest ago.
func (s *sums) done(t *sumTable) error {
	before, after := t.tidy()
	err := t.store()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held += after - before
	for s.held > sumsInMemory && len(s.tables) > 1 {
		oldest := ""
		for k, other := range s.tables {
			if other != t && (oldest == "" || other.used.Before(s.tables[oldest].used)) {
				oldest = k
			}
		}
		if oldest == "" {
			break
		}
		s.tables[oldest].mu.Lock()
		s.held -= len(s.tables[oldest].entries)
		s.tables[oldest].mu.Unlock()
		delete(s.tables, oldest)
	}
	return errors.Join(err, s.trim())
}

// find returns what is known of a file in this state.
func (t *sumTable) find(st samehost.State) (fileSum, bool) {
	if st == (samehost.State{}) {
		return fileSum{}, false
	}
	id := fileID{st.Dev, st.Ino}
	t.mu.Lock()
	defer t.mu.Unlock()
	f, ok := t.entries[id]
	if !ok || f.size != st.Size || f.mtime != st.Mtime || f.ctime != st.Ctime {
		return fileSum{}, false
	}
	if f.round != t.round {
		f.round = t.round
		t.entries[id] = f
	}
	return f, true
}

// put remembers a file whose state was the same before and after it was digested.
func (t *sumTable) put(st samehost.State, plain bool, sum [sha256.Size]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entries[fileID{st.Dev, st.Ino}] = fileSum{st.Size, st.Mtime, st.Ctime, t.round, plain, sum}
	t.changed = true
}

// keepRounds is for how many uses of a table a file is remembered that was not seen: another selection of the directory may
// be asked for in turn.
const keepRounds = 16

// tidy drops what was not seen for long. It returns how many entries there were when the table was taken, roughly, and are.
func (t *sumTable) tidy() (before, after int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before = len(t.entries)
	if !t.changed {
		return before, before
	}
	for id, f := range t.entries {
		if t.round-f.round > keepRounds {
			delete(t.entries, id)
		}
	}
	return before, len(t.entries)
}

// sumHead begins a file: what it is, and the version of its format. The digest of all that follows comes next.
const sumHead = "slipway sums 1\n\x00"

const sumSize = 5*8 + 1 + sha256.Size

func (t *sumTable) load() error {
	b, err := os.ReadFile(t.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	const head = len(sumHead) + sha256.Size
	if len(b) < head || string(b[:len(sumHead)]) != sumHead || (len(b)-head)%sumSize != 0 ||
		[sha256.Size]byte(b[len(sumHead):head]) != sha256.Sum256(b[head:]) {
		return errors.Join(fmt.Errorf("%s is damaged or of another version", t.file), os.Remove(t.file))
	}
	t.entries = make(map[fileID]fileSum, (len(b)-head)/sumSize)
	le := binary.LittleEndian
	for b = b[head:]; len(b) > 0; b = b[sumSize:] {
		f := fileSum{size: int64(le.Uint64(b[16:])), mtime: int64(le.Uint64(b[24:])), ctime: int64(le.Uint64(b[32:])), plain: b[40] == 1}
		copy(f.sum[:], b[41:sumSize])
		t.entries[fileID{le.Uint64(b), le.Uint64(b[8:])}] = f
	}
	now := time.Now()
	return os.Chtimes(t.file, now, now)
}

// store writes the table aside and moves it, so a reader sees the old or the new one.
func (t *sumTable) store() error {
	t.mu.Lock()
	if !t.changed || t.file == "" {
		t.changed = false
		t.mu.Unlock()
		return nil
	}
	t.changed = false
	body := make([]byte, 0, len(t.entries)*sumSize)
	le := binary.LittleEndian
	for id, f := range t.entries {
		for _, v := range [...]uint64{id.dev, id.ino, uint64(f.size), uint64(f.mtime), uint64(f.ctime)} {
			body = le.AppendUint64(body, v)
		}
		plain := byte(0)
		if f.plain {
			plain = 1
		}
		body = append(append(body, plain), f.sum[:]...)
	}
	t.mu.Unlock()
	sum := sha256.Sum256(body)
	f, err := os.CreateTemp(filepath.Dir(t.file), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(bytes.Join([][]byte{[]byte(sumHead), sum[:], body}, nil))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), t.file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// trim removes the files used longest ago, and what a crash left half-written.
func (s *sums) trim() error {
	if s.dir == "" {
		return nil
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	var all []fs.FileInfo
	var size int64
	for _, e := range entries {
		if fi, err := e.Info(); err == nil {
			all = append(all, fi)
			size += fi.Size()
		}
	}
	slices.SortFunc(all, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for len(all) > 1 && (len(all) > sumFiles || size > sumsOnDisk) {
		if err := os.Remove(filepath.Join(s.dir, all[0].Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		size -= all[0].Size()
		all = all[1:]
	}
	return nil
}
