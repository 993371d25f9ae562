package engineapi

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strconv"

	"github.com/moby/buildkit/util/archiveutil"
)

// frontendPeek is how much of a context the Dockerfile frontend looks at to tell an archive from a Dockerfile.
const frontendPeek = 1024

// recognisable returns a context that the frontend takes for what it is. The frontend needs the whole first entry of an
// uncompressed tar within the little it looks at, and an entry that begins with extended attributes, as Python's tars do, is
// longer; such a tar is passed on as a gzip stream, which it knows by its first bytes.
func recognisable(body io.ReadCloser) io.ReadCloser { return &sniffed{body: body} }

// sniffed decides at the first Read, in the goroutine of who reads.
type sniffed struct {
	body io.ReadCloser
	r    io.Reader
}

func (c *sniffed) Read(p []byte) (int, error) {
	if c.r == nil {
		in := bufio.NewReaderSize(c.body, 64<<10)
		head, err := in.Peek(frontendPeek)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		c.r = in
		if !archiveutil.IsArchive(head) && isTarHeader(head) {
			c.r = newStored(in)
		}
	}
	return c.r.Read(p)
}

func (c *sniffed) Close() error { return c.body.Close() }

// The header of a tar's entry (POSIX.1-2017, ustar): a block whose bytes add up to the checksum in it, in octal.
const (
	tarBlock      = 512
	checksumAt    = 148
	checksumBytes = 8
)

// isTarHeader tells whether a block is the header of a tar's entry, whatever the kind of it.
func isTarHeader(block []byte) bool {
	if len(block) < tarBlock {
		return false
	}
	field := bytes.Trim(block[checksumAt:checksumAt+checksumBytes], " \x00")
	want, err := strconv.ParseInt(string(field), 8, 64)
	if err != nil {
		return false
	}
	var unsigned, signed int64
	for i, c := range block[:tarBlock] {
		if i >= checksumAt && i < checksumAt+checksumBytes {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c)) // old writers added signed bytes
	}
	return want == unsigned || want == signed
}

// stored is a stream as gzip without compression.
type stored struct {
	in  io.Reader
	gz  *gzip.Writer
	out bytes.Buffer
	buf []byte
	err error // of in, once it ended
}

func newStored(in io.Reader) *stored {
	s := &stored{in: in, buf: make([]byte, 64<<10)}
	s.gz, s.err = gzip.NewWriterLevel(&s.out, gzip.NoCompression)
	return s
}

func (s *stored) Read(p []byte) (int, error) {
	for s.out.Len() == 0 {
		if s.err != nil {
			return 0, s.err
		}
		n, err := s.in.Read(s.buf)
		_, _ = s.gz.Write(s.buf[:n]) // to memory
		if err != nil {
			s.err = err
			if errors.Is(err, io.EOF) {
				_ = s.gz.Close()
			}
		}
	}
	return s.out.Read(p)
}
