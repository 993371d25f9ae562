package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/frontend/classic"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// watches tells a frontend what happens to its steps. They are read from the build's journal, so that a slow reader holds up nobody's
// work; what was written is counted on the way there, so that it is known when the reader has seen it all.
type watches struct {
	sink progress.Sink
	open func(context.Context) (*progress.Reader, error)

	mu      sync.Mutex // guards what follows
	written map[digest.Digest]int
	reading sync.Mutex // held by the one watch there may be; guards what follows
	reader  *progress.Reader
	read    map[digest.Digest]int
}

var _ classic.Steps = (*watches)(nil)

func newWatches(sink progress.Sink, open func(context.Context) (*progress.Reader, error)) *watches {
	return &watches{sink: sink, open: open, written: map[digest.Digest]int{}, read: map[digest.Digest]int{}}
}

// Append writes an event to the journal.
func (w *watches) Append(ev progress.Event) {
	w.sink.Append(ev)
	if ev.Vertex == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.written[ev.Vertex.ID]++
}

func (w *watches) count(id digest.Digest) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.written[id]
}

// Watch implements [classic.Steps]. One step is watched at a time.
func (w *watches) Watch(ctx context.Context, step digest.Digest, tell func(progress.Event)) (func() error, error) {
	w.reading.Lock()
	if w.reader == nil {
		r, err := w.open(ctx)
		if err != nil {
			w.reading.Unlock()
			return nil, fmt.Errorf("follow the build: %w", err)
		}
		w.reader = r
	}
	// What came before is no part of it.
	if err := w.readUntil(ctx, step, w.count(step), func(progress.Event) {}); err != nil {
		w.reading.Unlock()
		return nil, err
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- w.readUntil(life, step, -1, tell) }()
	return func() error {
		defer w.reading.Unlock()
		stop()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		return w.readUntil(context.WithoutCancel(ctx), step, w.count(step), tell)
	}, nil
}

// readUntil reads on until a step has been told of so many times, or without end if it is less than 0.
func (w *watches) readUntil(ctx context.Context, step digest.Digest, times int, tell func(progress.Event)) error {
	for times < 0 || w.read[step] < times {
		ev, err := w.reader.Next(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, context.Canceled):
			return err
		case err != nil:
			return fmt.Errorf("follow the build: %w", err)
		}
		switch {
		case ev.Vertex != nil:
			w.read[ev.Vertex.ID]++
			if ev.Vertex.ID == step {
				tell(ev)
			}
		case ev.Log != nil && ev.Log.Vertex == step:
			tell(ev)
		}
	}
	return nil
}

// close gives the journal back. No watch is open.
func (w *watches) close() error {
	w.reading.Lock()
	defer w.reading.Unlock()
	if w.reader == nil {
		return nil
	}
	return w.reader.Close()
}
