package exportertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/filesync"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// File takes a stream as a client's file does.
type File struct {
	// Refuse, if set, is returned by Write once Limit bytes are there.
	Refuse error
	Limit  int

	mu      sync.Mutex
	data    bytes.Buffer
	md      map[string]string
	aborted error
	opened  bool
	closed  bool
}

// Target is the client's end of output id.
func (f *File) Target(id int) session.Attachable {
	return filesync.NewTarget(map[int]filesync.Target{id: {Open: func(md map[string]string) (io.WriteCloser, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.md, f.opened = md, true
		return f, nil
	}}})
}

func (f *File) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Refuse != nil && f.data.Len()+len(p) > f.Limit {
		return 0, f.Refuse
	}
	return f.data.Write(p)
}

// Abort implements [filesync.Aborter].
func (f *File) Abort(cause error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.aborted = cause
}

// Close ends the file.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return nil
}

// Whole tells whether the client believes that it has everything.
func (f *File) Whole() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed && f.aborted == nil
}

// Opened tells whether anything was sent at all.
func (f *File) Opened() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.opened
}

// Bytes is what was written.
func (f *File) Bytes() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return bytes.Clone(f.data.Bytes())
}

// Metadata is what the exporter said about the file.
func (f *File) Metadata() map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.md
}

// Progress remembers statuses.
type Progress struct {
	mu   sync.Mutex
	last map[string]progress.Status
}

// Status implements [progress.Writer].
func (p *Progress) Status(s progress.Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last == nil {
		p.last = map[string]progress.Status{}
	}
	p.last[s.ID] = s
}

// Log implements [progress.Writer].
func (*Progress) Log(int, []byte) {}

// Warn implements [progress.Writer].
func (*Progress) Warn(progress.Warning) {}

// Last is the last that was said of a status.
func (p *Progress) Last(id string) (progress.Status, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.last[id]
	return s, ok
}

// Open lists the statuses that were begun and not ended.
func (p *Progress) Open() (ids []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, s := range p.last {
		if s.Completed == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// Blobs is a fetcher of blobs by digest that counts.
type Blobs struct {
	mu      sync.Mutex
	data    map[string][]byte
	fetched map[string]int
}

// Add puts a blob in.
func (f *Blobs) Add(digest string, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.data == nil {
		f.data, f.fetched = map[string][]byte{}, map[string]int{}
	}
	f.data[digest] = data
}

// Fetch implements [layers.Fetcher].
func (f *Blobs) Fetch(_ context.Context, b layers.RemoteBlob) (io.ReadCloser, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := b.Descriptor.Digest.String()
	data, ok := f.data[d]
	if !ok {
		return nil, fmt.Errorf("no blob %s: %w", d, errors.ErrUnsupported)
	}
	f.fetched[d]++
	return io.NopCloser(bytes.NewReader(data)), nil
}

// Layer is a blob as go-containerregistry's client uploads it.
func (f *Blobs) Layer(t testing.TB, b layers.RemoteBlob) v1.Layer {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	return static.NewLayer(f.data[b.Descriptor.Digest.String()], types.MediaType(b.Descriptor.MediaType))
}

// Fetched is how often anything was fetched.
func (f *Blobs) Fetched() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, k := range f.fetched {
		n += k
	}
	return n
}
