package filesync

import (
	"errors"
	"io"
)

// The consumer's end of the receiver: files are handed on one at a time, in order.

// next hands on the next entry; io.EOF when there is none any more and the peer agreed.
func (r *receiver) next() (*File, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropCurrent()
	for r.err == nil {
		if r.head == len(r.queue) {
			if r.listed && len(r.asked) == 0 && !r.consumed {
				r.consumed = true
				r.cond.Broadcast()
			}
			r.cond.Wait()
			continue
		}
		in := r.queue[r.head]
		if in.waiting && in.size <= wholeSize {
			r.advance()
			r.cond.Wait()
			continue
		}
		r.queue[r.head] = nil
		r.head++
		r.shrink()
		return r.handOn(in), nil
	}
	return nil, r.err
}

// handOn makes an entry the current one. mu is held.
func (r *receiver) handOn(in *incoming) *File {
	f := &File{Stat: in.stat, Hint: in.hint}
	if !in.wanted {
		r.advance()
		return f
	}
	r.current = in
	if !in.waiting && in.size <= wholeSize {
		in.stat.Size = in.held
	}
	f.Content = &content{r: r, in: in, left: in.stat.Size}
	return f
}

// dropCurrent ends the consumption of the current file. mu is held.
func (r *receiver) dropCurrent() {
	in := r.current
	if in == nil {
		return
	}
	r.current = nil
	in.skip, in.chunks, in.held = true, nil, 0
	r.inFlight -= in.cost
	r.inline -= in.inline
	r.advance()
	r.cond.Broadcast()
}

// shrink forgets handed-on places of the queue now and then. mu is held.
func (r *receiver) shrink() {
	if r.ask < r.head {
		r.ask = r.head
	}
	if r.head < 4096 || r.head < len(r.queue)/2 {
		return
	}
	n := copy(r.queue, r.queue[r.head:])
	clear(r.queue[n:])
	r.queue = r.queue[:n]
	r.ask -= r.head
	r.head = 0
}

// content is the consumer's end of the current file.
type content struct {
	r    *receiver
	in   *incoming
	left int64
}

func (c *content) Read(p []byte) (int, error) {
	r, in := c.r, c.in
	r.mu.Lock()
	defer r.mu.Unlock()
	if in != r.current {
		return 0, errors.New("file was left by Next")
	}
	if c.left == 0 || len(p) == 0 {
		if c.left == 0 {
			return 0, io.EOF
		}
		return 0, nil
	}
	for in.held == 0 {
		if r.err != nil {
			return 0, r.err
		}
		if !in.waiting {
			return 0, &ChangedError{Path: in.stat.Path, Want: in.size, Got: in.got}
		}
		r.cond.Wait()
	}
	n := 0
	for n < len(p) && in.held > 0 && c.left > 0 {
		k := copy(p[n:], in.chunks[0][:min(int64(len(in.chunks[0])), c.left)])
		n += k
		in.held -= int64(k)
		c.left -= int64(k)
		if in.chunks[0] = in.chunks[0][k:]; len(in.chunks[0]) == 0 {
			in.chunks = in.chunks[1:]
		}
	}
	r.cond.Broadcast()
	return n, nil
}
