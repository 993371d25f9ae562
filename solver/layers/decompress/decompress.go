// Package decompress opens compressed layers by what they are, not by what they are said to be.
package decompress

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// maxWindow bounds the memory that a zstd frame may ask for. It is what zstd --long=27 makes.
const maxWindow = 128 << 20

var formats = []struct {
	name  string
	magic []byte
	open  func(io.Reader) (io.ReadCloser, error)
}{
	{"gzip", []byte{0x1f, 0x8b}, func(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }},
	{"zstd", []byte{0x28, 0xb5, 0x2f, 0xfd}, openZstd},
	{"zstd", []byte{0x50, 0x2a, 0x4d, 0x18}, openZstd}, // a skippable frame first, as eStargz's sibling writes it
	{"bzip2", []byte("BZh"), func(r io.Reader) (io.ReadCloser, error) { return io.NopCloser(bzip2.NewReader(r)), nil }},
	{"xz", []byte("\xfd7zXZ\x00"), func(r io.Reader) (io.ReadCloser, error) {
		x, err := xz.NewReader(r)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(x), nil
	}},
}

// NewReader returns the bytes of r decompressed, by its first bytes; as they are if no compression is known by them. Closing
// what is returned frees memory and does not close r. Members that follow one another are one stream, as their tools have it.
func NewReader(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	for _, f := range formats {
		if !bytes.HasPrefix(head, f.magic) {
			continue
		}
		d, err := f.open(b)
		if err != nil {
			return nil, fmt.Errorf("decompress %s: %w", f.name, err)
		}
		return &named{name: f.name, r: ahead(d)}, nil
	}
	return io.NopCloser(b), nil
}

func openZstd(r io.Reader) (io.ReadCloser, error) {
	d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, err
	}
	return d.IOReadCloser(), nil
}

// named says in errors which format it was.
type named struct {
	name string
	r    io.ReadCloser
}

func (n *named) Read(p []byte) (int, error) {
	c, err := n.r.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // io.Reader's own sentinel
		err = fmt.Errorf("decompress %s: %w", n.name, err)
	}
	return c, err
}

func (n *named) Close() error { return n.r.Close() }

// ahead decompresses in a goroutine of its own, up to two blocks ahead, so that whoever reads can hash and write meanwhile.
func ahead(r io.ReadCloser) io.ReadCloser {
	a := &aheadReader{src: r, full: make(chan block, 1), empty: make(chan []byte, 2), stop: make(chan struct{}), done: make(chan struct{})}
	for range cap(a.empty) {
		a.empty <- make([]byte, 256<<10)
	}
	go a.fill()
	return a
}

type block struct {
	buf []byte
	n   int
	err error
}

type aheadReader struct {
	src   io.ReadCloser
	full  chan block
	empty chan []byte
	stop  chan struct{}
	done  chan struct{}
	once  sync.Once

	cur block
	off int
}

func (a *aheadReader) fill() {
	defer close(a.done)
	for {
		var b block
		select {
		case b.buf = <-a.empty:
		case <-a.stop:
			return
		}
		for b.n < len(b.buf) && b.err == nil {
			var n int
			n, b.err = a.src.Read(b.buf[b.n:])
			b.n += n
		}
		select {
		case a.full <- b:
		case <-a.stop:
			return
		}
		if b.err != nil {
			return
		}
	}
}

func (a *aheadReader) Read(p []byte) (int, error) {
	for a.off == a.cur.n {
		if a.cur.err != nil {
			return 0, a.cur.err
		}
		if a.cur.buf != nil {
			a.empty <- a.cur.buf
		}
		select {
		case a.cur = <-a.full:
			a.off = 0
		case <-a.stop:
			return 0, io.ErrClosedPipe
		}
	}
	n := copy(p, a.cur.buf[a.off:a.cur.n])
	a.off += n
	return n, nil
}

// Close waits for the goroutine, which waits for the source at most once more.
func (a *aheadReader) Close() error {
	a.once.Do(func() { close(a.stop) })
	<-a.done
	_ = a.src.Close() // says again what reading said
	return nil
}
