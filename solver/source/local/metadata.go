package local

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/session/filesync"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"github.com/tonistiigi/fsutil/types"
)

// metadataName is the file that lists what a metadata-only transfer left out: every entry's Stat after its length as four
// bytes, little endian. Frontends know the name.
const metadataName = ".fsutil-metadata"

func (q *query) excepted(p string) bool {
	if q.matcher == nil {
		return false
	}
	ok, err := q.matcher.MatchesOrParentMatches(p)
	return ok && err == nil
}

// packMetadata makes the layer of a metadata-only transfer: the list, the excepted entries and the directories above them.
// The list sorts among the first entries and is known last, so excepted contents wait in a temporary file.
func (r *run) packMetadata(ctx context.Context, t *filesync.Transfer) (*synced, error) {
	spool, err := os.CreateTemp(r.s.o.Root, ".metadata-*")
	if err != nil {
		return nil, err
	}
	defer func() { _ = spool.Close() }() // nobody reads it after this
	if err := os.Remove(spool.Name()); err != nil {
		return nil, err
	}
	m := &metadataFeed{run: r, spool: spool}
	if err := m.gather(ctx, t); err != nil {
		return nil, err
	}
	ref, err := r.s.o.Store.Pack(ctx, m, r.importOptions())
	if err != nil {
		return nil, err
	}
	return &synced{ref: ref, content: m.digest()}, nil
}

// metadataFeed is the [fstree.Source] of a metadata-only transfer.
type metadataFeed struct {
	run   *run
	spool *os.File
	size  int64
	list  bytes.Buffer
	items []spooled
	next  int
}

type spooled struct {
	fstree.Entry
	offset int64 // in the spool
	sum    [sha256.Size]byte
}

func (m *metadataFeed) gather(ctx context.Context, t *filesync.Transfer) error {
	var above []fstree.Entry // directories above the entry that were not taken yet
	for {
		f, err := t.Next(ctx)
		if errors.Is(err, io.EOF) {
			return m.insertList()
		}
		if err != nil {
			return err
		}
		if f.Stat.Path == metadataName {
			continue
		}
		if err := m.note(f.Stat); err != nil {
			return err
		}
		e := entry(f.Stat)
		for len(above) > 0 && above[len(above)-1].Path != path.Dir(e.Path) {
			above = above[:len(above)-1]
		}
		if m.run.q.excepted(e.Path) {
			for _, d := range above {
				m.items = append(m.items, spooled{Entry: d})
			}
			above = nil
			if err := m.take(e, f.Content); err != nil {
				return err
			}
		} else if e.IsDir() {
			above = append(above, e)
		}
	}
}

// note adds an entry to the list.
func (m *metadataFeed) note(st *types.Stat) error {
	b, err := st.MarshalVT()
	if err != nil {
		return err
	}
	m.list.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(b))))
	m.list.Write(b)
	return nil
}

func (m *metadataFeed) take(e fstree.Entry, content io.Reader) error {
	it := spooled{Entry: e, offset: m.size}
	if content != nil {
		t := newTee(content)
		n, err := io.Copy(m.spool, t)
		if err != nil {
			return fmt.Errorf("%q: %w", e.Path, err)
		}
		it.Size, it.sum = n, [sha256.Size]byte(t.h.Sum(nil))
		m.size += n
	}
	m.items = append(m.items, it)
	return nil
}

// insertList puts the list where it sorts.
func (m *metadataFeed) insertList() error {
	e := fstree.Entry{Path: metadataName, Mode: fstree.ModeRegular | 0o644, ModTime: time.Unix(0, 0)}
	at, _ := slices.BinarySearchFunc(m.items, metadataName, func(it spooled, p string) int { return fstree.Compare(it.Path, p) })
	if err := m.take(e, &m.list); err != nil {
		return err
	}
	last := m.items[len(m.items)-1]
	m.items = slices.Insert(m.items[:len(m.items)-1], at, last)
	return nil
}

func (m *metadataFeed) digest() digest.Digest {
	s := newContentSum()
	for i := range m.items {
		s.add(&m.items[i].Entry, m.items[i].sum)
	}
	return s.digest()
}

// Next implements [fstree.Source].
func (m *metadataFeed) Next(context.Context) (fstree.Entry, func(context.Context) (io.ReadCloser, error), error) {
	if m.next == len(m.items) {
		return fstree.Entry{}, nil, io.EOF
	}
	it := m.items[m.next]
	m.next++
	if !it.IsRegular() || it.Hardlink != "" {
		return it.Entry, nil, nil
	}
	return it.Entry, func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(m.spool, it.offset, it.Size)), nil
	}, nil
}
