package filesync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sync/errgroup"
)

// Tree is what is sent: a directory tree in the protocol's terms.
type Tree interface {
	// Walk calls f with every entry in walk order. The Stat becomes f's.
	Walk(ctx context.Context, f func(*types.Stat) error) error
	// Open opens a regular file that Walk gave.
	Open(ctx context.Context, path string) (io.ReadCloser, error)
}

// peerStream is either end of DiffCopy.
type peerStream interface {
	SendMsg(m any) error
	RecvMsg(m any) error
}

const (
	senderWorkers = 4
	// dataSize is the length of a DATA packet, well under gRPC's 4 MiB per message.
	dataSize = 128 << 10
	// aheadItems is how many STATs the walk may be ahead of the stream.
	aheadItems = 256
)

// sender is the sending side of the protocol.
type sender struct {
	src Tree
	// inline is the size up to which contents go with the STAT; 0 for never.
	inline int64
	// exact says that the receiver takes no more of a large file than was announced.
	exact bool
	// progress is told the bytes of contents sent; may be nil. Called from several goroutines.
	progress func(n int64)

	sendMu sync.Mutex // serialises stream.SendMsg
	stream peerStream

	mu    sync.Mutex // guards the rest
	files map[uint32]job
	jobs  []job
	more  sync.Cond
	ended bool
}

type job struct {
	id   uint32
	path string
	size int64 // as it was announced
}

func newSender(src Tree, stream peerStream) *sender {
	s := &sender{src: src, stream: stream, files: map[uint32]job{}}
	s.more.L = &s.mu
	return s
}

// run sends the tree until the receiver has all it wants. When it returns an error the goroutine that reads the stream may
// live until the caller ends the stream.
func (s *sender) run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	finished := make(chan error, 1)
	go func() {
		err := s.receive()
		s.endJobs()
		finished <- err
	}()
	// The receiver's word ends everything, good or bad: a failed Send only says that the stream is over, and the reason is there.
	received := make(chan error, 1)
	g.Go(func() error {
		select {
		case err := <-finished:
			received <- err
			return err
		case <-gctx.Done():
			return nil
		}
	})
	g.Go(func() error {
		err := s.walk(gctx)
		if err != nil && !errors.Is(err, io.EOF) && ctx.Err() == nil {
			_ = s.send(&types.Packet{Type: types.PACKET_ERR, Data: []byte(err.Error())}) // the stream's end says the same
		}
		return err
	})
	for range senderWorkers {
		g.Go(func() error { return s.work(gctx) })
	}
	stop := context.AfterFunc(gctx, s.endJobs)
	defer stop()
	err := g.Wait()
	if errors.Is(err, io.EOF) {
		select {
		case err = <-received:
		case err = <-finished:
		}
	}
	if err != nil {
		return err
	}
	return s.send(&types.Packet{Type: types.PACKET_FIN})
}

func (s *sender) send(p *types.Packet) error {
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	return s.stream.SendMsg(p)
}

// receive takes requests until FIN.
func (s *sender) receive() error {
	for {
		var p types.Packet
		if err := s.stream.RecvMsg(&p); err != nil {
			if errors.Is(err, io.EOF) {
				return fmt.Errorf("receiver hung up: %w", io.ErrUnexpectedEOF)
			}
			return err
		}
		switch p.Type {
		case types.PACKET_REQ:
			if err := s.enqueue(p.ID); err != nil {
				return err
			}
		case types.PACKET_FIN:
			return nil
		case types.PACKET_ERR:
			return fmt.Errorf("error from receiver: %s", clip(string(p.Data)))
		default:
			return &ProtocolError{Reason: fmt.Sprintf("unexpected packet %v from receiver", p.Type)}
		}
	}
}

// enqueue never waits: a receiver may ask for everything before it reads anything. Each file can be asked for once, so the
// list is bounded by the tree.
func (s *sender) enqueue(id uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	j, ok := s.files[id]
	if !ok {
		return &ProtocolError{Reason: fmt.Sprintf("request for entry %d, which is no file to be asked for", id)}
	}
	delete(s.files, id)
	s.jobs = append(s.jobs, j)
	s.more.Signal()
	return nil
}

func (s *sender) endJobs() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.more.Broadcast()
}

func (s *sender) work(ctx context.Context) error {
	buf := make([]byte, dataSize)
	for {
		s.mu.Lock()
		for len(s.jobs) == 0 && !s.ended {
			s.more.Wait()
		}
		if s.ended {
			s.mu.Unlock()
			return nil
		}
		j := s.jobs[0]
		s.jobs = s.jobs[1:]
		s.mu.Unlock()
		if err := s.sendFile(ctx, j, buf); err != nil {
			return err
		}
	}
}

// steadyTries is how often a file is read that changes meanwhile, before the transfer fails.
const steadyTries = 5

// sendFile sends the contents of one file. One that has vanished is sent empty: the protocol knows no other way to say so
// without failing the whole transfer, and the receiver knows the size that was announced. What was sent cannot be taken back, so a file
// that changes is read again only if it fits into buf.
func (s *sender) sendFile(ctx context.Context, j job, buf []byte) error {
	for try := 1; ; try++ {
		sent, err := s.trySendFile(ctx, j, buf)
		switch {
		case errors.Is(err, errChanging) && sent == 0 && try < steadyTries && ctx.Err() == nil:
			continue
		case errors.Is(err, errChanging):
			return s.fail(fmt.Errorf("%s: %w", j.path, err))
		}
		return err
	}
}

// trySendFile is sendFile once. Of errors to read, all but errChanging were told to the receiver.
func (s *sender) trySendFile(ctx context.Context, j job, buf []byte) (sent int64, err error) {
	f, err := s.src.Open(ctx, j.path)
	if isGone(err) {
		return 0, s.send(&types.Packet{Type: types.PACKET_DATA, ID: j.id})
	}
	if err != nil {
		return 0, s.fail(err)
	}
	defer func() { _ = f.Close() }() // opened for reading
	for {
		n, err := io.ReadFull(f, buf)
		if errors.Is(err, errChanging) {
			return sent, err
		}
		if n > 0 {
			if s.exact && j.size > wholeSize && sent+int64(n) > j.size {
				return sent, errChanging
			}
			if err := s.send(&types.Packet{Type: types.PACKET_DATA, ID: j.id, Data: buf[:n]}); err != nil {
				return sent, err
			}
			sent += int64(n)
			if s.progress != nil {
				s.progress(int64(n))
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return sent, s.send(&types.Packet{Type: types.PACKET_DATA, ID: j.id})
		}
		if err != nil {
			return sent, s.fail(fmt.Errorf("read %s: %w", j.path, err))
		}
		if ctx.Err() != nil {
			return sent, context.Cause(ctx)
		}
	}
}

// fail tells the receiver.
func (s *sender) fail(err error) error {
	_ = s.send(&types.Packet{Type: types.PACKET_ERR, Data: []byte(err.Error())}) // the stream's end says the same
	return err
}
