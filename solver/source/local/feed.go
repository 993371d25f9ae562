package local

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/slipwaybuild/slipway/session/filesync"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// item is one entry on its way into the layer, and then what is remembered of it.
type item struct {
	fstree.Entry
	meta [16]byte
	hint string
	same *known // it is copied from the previous layer
	// Of a regular file that is not: its contents, if small, or where they come from.
	data    []byte
	content io.Reader
	begin   *begin            // what was read of content before; may be nil
	done    chan struct{}     // closed when content was used; nil without content
	sum     [sha256.Size]byte // set by the time the layer is made
}

func (it *item) hasContent() bool { return it.IsRegular() && it.Hardlink == "" }

// feed is the [fstree.Source] of a layer: what compare has read already, then what comes from the client. On the way contents
// are digested.
//
// The store reads ahead: it calls Next while files given before are still to be opened, and opens several at once. Small files
// are therefore taken into memory here, and after a large one Next waits until it was read.
type feed struct {
	run   *run
	t     *filesync.Transfer
	ahead []*item // read by compare and not yielded
	ended bool    // the client said all
	given []*item // yielded
}

// small is how large a file may be to be taken into memory. It is what the transfer holds in memory in any case.
const small = 256 << 10

// compare reads as long as everything is as in the previous layer, contents that were transferred all the same included, and tells
// whether that was all. What it read is yielded again; nothing of it has contents to be read but the last.
func (f *feed) compare(ctx context.Context) (same bool, err error) {
	want := f.run.prev.manifest.Entries
	for i := 0; ; i++ {
		it, err := f.read(ctx)
		if errors.Is(err, io.EOF) {
			f.ended = true
			return i == len(want), nil
		}
		if err != nil {
			return false, err
		}
		f.ahead = append(f.ahead, it)
		if i >= len(want) || want[i].Path != it.Path || want[i].Meta != it.meta {
			return false, nil
		}
		if it.hasContent() && it.same == nil {
			if err := f.match(ctx, it, &want[i]); err != nil || it.same == nil {
				return false, err
			}
		}
	}
}

// read takes an entry from the client.
func (f *feed) read(ctx context.Context) (*item, error) {
	file, err := f.t.Next(ctx)
	if err != nil {
		return nil, err
	}
	it := &item{Entry: entry(file.Stat), hint: file.Hint}
	it.meta = metaSum(&it.Entry)
	switch {
	case !it.hasContent():
	case file.Content == nil:
		if it.same = f.run.prev.find(it.Path, it.meta, it.hint); it.same == nil {
			return nil, fmt.Errorf("%q: neither transferred nor known", it.Path)
		}
	case it.Size <= small:
		it.data = make([]byte, it.Size)
		if _, err := io.ReadFull(file.Content, it.data); err != nil {
			return nil, fmt.Errorf("%q: %w", it.Path, err)
		}
		it.sum = sha256.Sum256(it.data)
	default:
		it.content, it.done = file.Content, make(chan struct{})
	}
	return it, nil
}

// match compares the contents of a file with those of the same name in the previous layer, k. If they are the same, the file is.
func (f *feed) match(ctx context.Context, it *item, k *known) error {
	if it.content == nil {
		if it.sum == k.Sum {
			it.same, it.data = k, nil
		}
		return nil
	}
	old, err := f.run.prev.tree.Open(ctx, it.Path)
	if err != nil {
		return nil // the layer is at fault; whoever makes the next one has the contents
	}
	defer func() { _ = old.Close() }() // it was read only
	got, was := make([]byte, small), make([]byte, small)
	for at := int64(0); ; {
		n, err := io.ReadFull(it.content, got)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("%q: %w", it.Path, err)
		}
		if m, readErr := old.ReadAt(was[:n], at); m < n || readErr != nil && !errors.Is(readErr, io.EOF) || !bytes.Equal(got[:n], was[:n]) {
			it.begin = &begin{same: at, then: got[:n]}
			return nil
		}
		if at += int64(n); err != nil {
			if at == it.Size {
				it.same, it.content, it.done = k, nil, nil
			} else {
				it.begin = &begin{same: at}
			}
			return nil
		}
	}
}

// begin is what was read of a large file before it was seen to have changed.
type begin struct {
	same int64  // so many bytes are as in the previous layer
	then []byte // and what came after them
}

// Next implements [fstree.Source].
func (f *feed) Next(ctx context.Context) (fstree.Entry, func(context.Context) (io.ReadCloser, error), error) {
	if n := len(f.given); n > 0 && f.given[n-1].done != nil {
		select {
		case <-f.given[n-1].done:
		case <-ctx.Done():
			return fstree.Entry{}, nil, context.Cause(ctx)
		}
	}
	it, err := f.next(ctx)
	if err != nil {
		return fstree.Entry{}, nil, err
	}
	f.given = append(f.given, it)
	if !it.hasContent() {
		return it.Entry, nil, nil
	}
	return it.Entry, func(ctx context.Context) (io.ReadCloser, error) { return f.open(ctx, it) }, nil
}

func (f *feed) next(ctx context.Context) (*item, error) {
	if len(f.ahead) > 0 {
		it := f.ahead[0]
		f.ahead = f.ahead[1:]
		return it, nil
	}
	if f.ended {
		return nil, io.EOF
	}
	return f.read(ctx)
}

// open may be called concurrently for different items.
func (f *feed) open(ctx context.Context, it *item) (io.ReadCloser, error) {
	switch {
	case it.same != nil:
		c, err := f.run.prev.tree.Open(ctx, it.Path)
		if err != nil {
			return nil, fmt.Errorf("copy from previous layer: %w", err)
		}
		return fstree.NewReader(c), nil
	case it.begin != nil:
		old, err := f.run.prev.tree.Open(ctx, it.Path)
		if err != nil {
			return nil, fmt.Errorf("copy from previous layer: %w", err)
		}
		all := io.MultiReader(io.NewSectionReader(old, 0, it.begin.same), bytes.NewReader(it.begin.then), it.content)
		return &large{tee: newTee(all), it: it, old: old}, nil
	case it.content != nil:
		return &large{tee: newTee(it.content), it: it}, nil
	}
	data := it.data
	it.data = nil
	return io.NopCloser(bytes.NewReader(data)), nil
}

// large reads a file that was not taken into memory.
type large struct {
	*tee
	it  *item
	old io.Closer // may be nil
}

func (l *large) Close() error {
	l.it.sum = [sha256.Size]byte(l.h.Sum(nil))
	l.it.content, l.it.begin = nil, nil
	close(l.it.done)
	if l.old != nil {
		return l.old.Close()
	}
	return nil
}

// summary gives the digest of what was packed and its manifest. It is called when the layer is made: then all sums are there.
func (f *feed) summary() (*contentSum, []known) {
	sum, entries := newContentSum(), make([]known, 0, len(f.given))
	for _, it := range f.given {
		if it.same != nil {
			it.sum = it.same.Sum
		}
		sum.add(&it.Entry, it.sum)
		entries = append(entries, known{Path: it.Path, Meta: it.meta, Hint: it.hint, Sum: it.sum})
	}
	return sum, entries
}
