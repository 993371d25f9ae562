package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/moby/sys/signal"
	"google.golang.org/grpc/codes"
)

// maxProcesses bounds how many processes one stream may have at a time.
const maxProcesses = 1 << 10

// ExecProcess runs processes for its client, any number on one stream, told apart by the ids that the client gives them. Each
// gets Started, the output, the end of each output, Exit, and Done last; one that could not be started gets the same. When the
// stream ends so do its processes: nobody could ever hear of them again.
func (g *Gateway) ExecProcess(stream gwpb.LLBBridge_ExecProcessServer) error {
	_, err := call(stream.Context(), g, func(ctx context.Context) (struct{}, error) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		x := &execStream{
			g: g, stream: stream, ctx: ctx, fail: cancel,
			outbox: make(chan *gwpb.ExecMessage), sent: make(chan struct{}), byID: map[string]*drivenProcess{},
		}
		return struct{}{}, x.serve()
	})
	return err
}

// execStream is one stream and the processes that run for it. Two goroutines read and write the stream; they end with it, which is
// when ExecProcess has returned, so that a client who does not read its output cannot keep what it abandoned.
type execStream struct {
	g      *Gateway
	stream gwpb.LLBBridge_ExecProcessServer
	ctx    context.Context // until the stream or the build ends
	fail   context.CancelCauseFunc
	outbox chan *gwpb.ExecMessage
	sent   chan struct{} // closed when all of the outbox was sent
	wg     sync.WaitGroup

	mu      sync.Mutex // guards what follows
	byID    map[string]*drivenProcess
	running int
}

// serve handles what the client sends and returns when nothing runs any more: a client that says no more still hears.
func (x *execStream) serve() error {
	go x.sendAll()
	err := x.handleAll()
	if err != nil {
		x.fail(err)
	}
	x.wg.Wait()
	close(x.outbox)
	select {
	case <-x.sent:
	case <-x.ctx.Done():
		if err == nil {
			err = context.Cause(x.ctx)
		}
	}
	return err
}

func (x *execStream) sendAll() {
	defer close(x.sent)
	for m := range x.outbox {
		if err := x.stream.Send(m); err != nil {
			x.fail(err)
		}
	}
}

// send hands a message to the client.
func (x *execStream) send(m *gwpb.ExecMessage) error {
	if x.ctx.Err() != nil {
		return context.Cause(x.ctx) // whoever missed one message gets none that come after it
	}
	select {
	case x.outbox <- m:
		return nil
	case <-x.ctx.Done():
		return context.Cause(x.ctx)
	}
}

// handleAll handles what the client sends until it says no more.
func (x *execStream) handleAll() error {
	messages := make(chan *gwpb.ExecMessage)
	failed := make(chan error, 1)
	go func() {
		for {
			m, err := x.stream.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case messages <- m:
			case <-x.ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case m := <-messages:
			if err := x.handle(m); err != nil {
				return err
			}
		case err := <-failed:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-x.ctx.Done():
			return context.Cause(x.ctx)
		}
	}
}

// handle does what one message says. An error ends the stream: only a broken client makes any.
func (x *execStream) handle(m *gwpb.ExecMessage) error {
	id := m.GetProcessID()
	if id == "" {
		return invalid("a message for no process")
	}
	x.mu.Lock()
	p := x.byID[id]
	x.mu.Unlock()
	if init := m.GetInit(); init != nil {
		return x.init(id, p, init)
	}
	if p == nil {
		return grpcerrors.WrapCode(fmt.Errorf("no such process on this stream: %q", id), codes.NotFound)
	}
	switch in := m.Input.(type) {
	case *gwpb.ExecMessage_File:
		return p.take(x.ctx, in.File)
	case *gwpb.ExecMessage_Resize:
		p.resize(x.ctx, gwclient.WinSize{Rows: in.Resize.GetRows(), Cols: in.Resize.GetCols()})
	case *gwpb.ExecMessage_Signal:
		sig, ok := signal.SignalMap[in.Signal.GetName()]
		if !ok {
			return invalid(fmt.Sprintf("unknown signal %q", in.Signal.GetName()))
		}
		p.signal(x.ctx, sig)
	default:
		return invalid("a message of an unknown kind")
	}
	return nil
}

// init begins a process.
func (x *execStream) init(id string, p *drivenProcess, init *gwpb.InitMessage) error {
	if init.Meta == nil {
		return invalid("a process without meta")
	}
	if p != nil {
		return grpcerrors.WrapCode(fmt.Errorf("there is a process %q on this stream", id), codes.AlreadyExists)
	}
	for _, fd := range init.Fds {
		if fd > 2 {
			return invalid(fmt.Sprintf("file descriptor %d of a process: there are 0, 1 and 2", fd))
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.running >= maxProcesses || len(x.byID) >= maxHandles {
		return grpcerrors.WrapCode(errors.New("too many processes on one stream"), codes.ResourceExhausted)
	}
	p = newDrivenProcess(id, init)
	x.byID[id] = p
	x.running++
	x.wg.Go(func() {
		p.run(x, init)
		x.mu.Lock()
		defer x.mu.Unlock()
		// What is still said to it is ignored, and its id is not free again.
		x.byID[id] = endedProcess
		x.running--
	})
	return nil
}
