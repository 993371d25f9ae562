package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// inputQueue is how many messages of input wait for a process before the stream does: one that reads nothing must not keep
// signals from it, or input from others, sooner than need be.
const inputQueue = 64

// outputChunk is the most that one message of output carries, in bytes.
const outputChunk = 32 << 10

// drivenProcess is a process as seen from its stream.
type drivenProcess struct {
	id    string
	input chan []byte   // what the client sends to fd 0; nil if it may not
	eof   bool          // input is closed; the stream's reader alone looks at it
	ready chan struct{} // closed when it runs, or never will
	done  chan struct{} // closed when it has ended

	// Set when ready.
	proc gwclient.ContainerProcess // nil if it could not be started
}

// endedProcess stands for all that have ended.
var endedProcess = func() *drivenProcess {
	p := &drivenProcess{ready: make(chan struct{}), done: make(chan struct{})}
	close(p.ready)
	close(p.done)
	return p
}()

func newDrivenProcess(id string, init *gwpb.InitMessage) *drivenProcess {
	p := &drivenProcess{id: id, ready: make(chan struct{}), done: make(chan struct{})}
	for _, fd := range init.Fds {
		if fd == 0 {
			p.input = make(chan []byte, inputQueue)
		}
	}
	return p
}

// run runs the process and tells the client all about it. It returns when the process is gone.
func (p *drivenProcess) run(x *execStream, init *gwpb.InitMessage) {
	defer close(p.done)
	outputs := map[uint32]*io.PipeWriter{}
	var readers sync.WaitGroup
	begin := make(chan struct{}) // closed when Started was sent: no output comes before it
	for _, fd := range init.Fds {
		if fd == 0 || outputs[fd] != nil {
			continue
		}
		r, w := io.Pipe()
		outputs[fd] = w
		// A client that is gone takes nothing more: the process finds its output closed.
		defer context.AfterFunc(x.ctx, func() { _ = r.CloseWithError(context.Cause(x.ctx)) })()
		readers.Go(func() { <-begin; p.copyOutput(x, fd, r) })
	}
	stdin := p.stdin(x)
	proc, err := x.g.startProcess(x.ctx, init, stdin, outputs)
	p.proc = proc
	close(p.ready)
	p.tell(x, &gwpb.ExecMessage{Input: &gwpb.ExecMessage_Started{Started: &gwpb.StartedMessage{}}})
	close(begin)
	if proc != nil {
		err = p.wait(x, proc)
	}
	if stdin != nil {
		_ = stdin.Close() // whoever writes sees it
	}
	for _, w := range outputs {
		_ = w.Close() // the reader sees the end
	}
	readers.Wait()
	p.tell(x, &gwpb.ExecMessage{Input: &gwpb.ExecMessage_Exit{Exit: exitMessage(x.ctx, err)}})
	p.tell(x, &gwpb.ExecMessage{Input: &gwpb.ExecMessage_Done{Done: &gwpb.DoneMessage{}}})
}

// startProcess starts what the client asks for in the container that it names.
func (g *Gateway) startProcess(ctx context.Context, init *gwpb.InitMessage, stdin io.ReadCloser, outputs map[uint32]*io.PipeWriter) (gwclient.ContainerProcess, error) {
	c, err := g.containers.find(init.ContainerID)
	if err != nil {
		return nil, err
	}
	req := gwclient.StartRequest{
		Args: init.Meta.Args, Env: init.Meta.Env, User: init.Meta.User, Cwd: init.Meta.Cwd, SecretEnv: init.Secretenv,
		Tty: init.Tty, Stdin: stdin, SecurityMode: init.Security, RemoveMountStubsRecursive: init.Meta.RemoveMountStubsRecursive,
	}
	// An interface that holds a nil pointer is not nil.
	if w := outputs[1]; w != nil {
		req.Stdout = w
	}
	if w := outputs[2]; w != nil {
		req.Stderr = w
	}
	return c.Start(ctx, req)
}

// wait returns when the process has ended, which it is made to do when the stream does.
func (p *drivenProcess) wait(x *execStream, proc gwclient.ContainerProcess) error {
	stop := context.AfterFunc(x.ctx, func() {
		if k, ok := proc.(interface{ Kill() }); ok {
			k.Kill()
			return
		}
		_ = proc.Signal(context.WithoutCancel(x.ctx), syscall.SIGKILL)
	})
	defer stop()
	return proc.Wait()
}

// tell sends a message about the process. It says false when nobody listens any more, which ends the process too.
func (p *drivenProcess) tell(x *execStream, m *gwpb.ExecMessage) bool {
	m.ProcessID = p.id
	return x.send(m) == nil
}

// stdin returns what the process reads; nil for nothing.
func (p *drivenProcess) stdin(x *execStream) io.ReadCloser {
	if p.input == nil {
		return nil
	}
	r, w := io.Pipe()
	x.wg.Go(func() {
		defer func() { _ = w.Close() }() // the process sees the end
		for {
			select {
			case data, ok := <-p.input:
				if !ok {
					return
				}
				if _, err := w.Write(data); err != nil {
					return // it reads no more
				}
			case <-p.done:
				return
			case <-x.ctx.Done():
				_ = r.Close()
				return
			}
		}
	})
	return r
}

// take hands input on. It waits while the process has not read what it was sent before.
func (p *drivenProcess) take(ctx context.Context, m *gwpb.FdMessage) error {
	if p == endedProcess {
		return nil
	}
	if m.GetFd() != 0 || p.input == nil || p.eof {
		return grpcerrors.WrapCode(fmt.Errorf("file descriptor %d of process %q cannot be written to", m.GetFd(), p.id), codes.OutOfRange)
	}
	if len(m.Data) > 0 {
		select {
		case p.input <- m.Data:
		case <-p.done:
		case <-ctx.Done():
		}
	}
	if m.EOF {
		p.eof = true
		close(p.input)
	}
	return nil
}

// copyOutput sends what the process prints, and that it prints no more.
func (p *drivenProcess) copyOutput(x *execStream, fd uint32, r *io.PipeReader) {
	defer func() { _ = r.Close() }()
	for {
		buf := make([]byte, outputChunk)
		n, err := r.Read(buf)
		if n > 0 {
			if !p.tell(x, &gwpb.ExecMessage{Input: &gwpb.ExecMessage_File{File: &gwpb.FdMessage{Fd: fd, Data: buf[:n]}}}) {
				return
			}
		}
		if err != nil {
			break
		}
	}
	p.tell(x, &gwpb.ExecMessage{Input: &gwpb.ExecMessage_File{File: &gwpb.FdMessage{Fd: fd, EOF: true}}})
}

// resize and signal wait for the process to run; they come from its client, who waits for that too.
func (p *drivenProcess) resize(ctx context.Context, size gwclient.WinSize) {
	if p.runs(ctx) {
		_ = p.proc.Resize(ctx, size) // fails with ctx alone
	}
}

func (p *drivenProcess) signal(ctx context.Context, sig syscall.Signal) {
	if p.runs(ctx) {
		_ = p.proc.Signal(ctx, sig) // fails with ctx alone
	}
}

func (p *drivenProcess) runs(ctx context.Context) bool {
	select {
	case <-p.ready:
		return p.proc != nil
	case <-ctx.Done():
		return false
	}
}

// exitMessage tells how a process ended. A code of 255 stands for one that is not known.
func exitMessage(ctx context.Context, err error) *gwpb.ExitMessage {
	if err == nil {
		return &gwpb.ExitMessage{}
	}
	m := &gwpb.ExitMessage{Code: gwpb.UnknownExitStatus}
	var exit *gwpb.ExitError
	if errors.As(err, &exit) {
		m.Code = exit.ExitCode
	}
	st, _ := status.FromError(grpcerrors.ToGRPC(ctx, err))
	p := st.Proto()
	m.Error = &spb.Status{Code: p.GetCode(), Message: p.GetMessage(), Details: p.GetDetails()}
	return m
}
