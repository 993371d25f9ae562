package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"syscall"
	"testing"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/slipwaybuild/slipway/frontend"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// fakeContainer runs processes that print what they read and end with it, with the number of signals they got.
type fakeContainer struct {
	gwclient.Container
	released bool
}

func (c *fakeContainer) Release(context.Context) error {
	c.released = true
	return nil
}

func (c *fakeContainer) Start(_ context.Context, r gwclient.StartRequest) (gwclient.ContainerProcess, error) {
	if len(r.Args) == 0 {
		return nil, errors.New("no command")
	}
	p := &fakeProcess{done: make(chan struct{}), killed: make(chan struct{})}
	go func() {
		defer close(p.done)
		if r.Stdin == nil {
			return
		}
		if r.Stdout == nil {
			_, _ = io.Copy(io.Discard, r.Stdin)
			return
		}
		_, _ = io.Copy(r.Stdout, r.Stdin)
	}()
	go func() {
		select {
		case <-p.killed:
			if r.Stdin != nil {
				_ = r.Stdin.Close()
			}
		case <-p.done:
		}
	}()
	return p, nil
}

type fakeProcess struct {
	done, killed chan struct{}
	once         sync.Once

	mu      sync.Mutex
	signals uint32
}

func (p *fakeProcess) Wait() error {
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.signals > 0 {
		return &gwpb.ExitError{ExitCode: p.signals, Err: errors.New("signalled")}
	}
	return nil
}

func (p *fakeProcess) Resize(context.Context, gwclient.WinSize) error { return nil }

func (p *fakeProcess) Signal(context.Context, syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signals++
	return nil
}

func (p *fakeProcess) Kill() { p.once.Do(func() { close(p.killed) }) }

// fakeStream is a client who sends what it is given and then no more, or goes away.
type fakeStream struct {
	grpc.ServerStream
	ctx  context.Context
	in   []*gwpb.ExecMessage
	gone bool // the client goes instead of waiting for the answer
	deaf bool // the client takes no messages

	mu  sync.Mutex
	out []*gwpb.ExecMessage
}

func (s *fakeStream) Context() context.Context { return s.ctx }

func (s *fakeStream) Recv() (*gwpb.ExecMessage, error) {
	if len(s.in) == 0 {
		if s.gone {
			return nil, grpcerrors.WrapCode(context.Canceled, codes.Canceled)
		}
		return nil, io.EOF
	}
	m := s.in[0]
	s.in = s.in[1:]
	return m, nil
}

func (s *fakeStream) Send(m *gwpb.ExecMessage) error {
	if s.deaf {
		<-s.ctx.Done()
		return s.ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = append(s.out, m)
	return nil
}

// run runs a stream to its end on a gateway with a container "c".
func (s *fakeStream) run(t testing.TB) error {
	t.Helper()
	g := newGateway(t.Context(), &fakeBridge{}, frontend.Request{})
	ctr := &fakeContainer{}
	if err := g.containers.add("c", ctr); err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	s.ctx = ctx
	err := g.ExecProcess(s)
	end() // as gRPC does
	if endErr := g.end(); endErr != nil || !ctr.released {
		t.Errorf("end of the gateway: %v, released %v", endErr, ctr.released)
	}
	return err
}

// story is what a process was told, a word a message.
func (s *fakeStream) story(id string) (words []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.out {
		if m.ProcessID != id {
			continue
		}
		switch in := m.Input.(type) {
		case *gwpb.ExecMessage_Started:
			words = append(words, "started")
		case *gwpb.ExecMessage_File:
			word := fmt.Sprintf("%d:%s", in.File.Fd, in.File.Data)
			if in.File.EOF {
				word = fmt.Sprintf("%d.", in.File.Fd)
			}
			words = append(words, word)
		case *gwpb.ExecMessage_Exit:
			words = append(words, fmt.Sprintf("exit %d", in.Exit.Code))
		case *gwpb.ExecMessage_Done:
			words = append(words, "done")
		}
	}
	return words
}

func initOf(id, ctr string, args []string, fds ...uint32) *gwpb.ExecMessage {
	return &gwpb.ExecMessage{ProcessID: id, Input: &gwpb.ExecMessage_Init{Init: &gwpb.InitMessage{
		ContainerID: ctr, Meta: &pb.Meta{Args: args}, Fds: fds,
	}}}
}

func fileOf(id string, data string, eof bool) *gwpb.ExecMessage {
	return &gwpb.ExecMessage{ProcessID: id, Input: &gwpb.ExecMessage_File{File: &gwpb.FdMessage{Data: []byte(data), EOF: eof}}}
}

func signalOf(id, name string) *gwpb.ExecMessage {
	return &gwpb.ExecMessage{ProcessID: id, Input: &gwpb.ExecMessage_Signal{Signal: &gwpb.SignalMessage{Name: name}}}
}

func TestStoriesOfProcesses(t *testing.T) {
	t.Parallel()
	cat := []string{"cat"}
	s := &fakeStream{in: []*gwpb.ExecMessage{
		initOf("a", "c", cat, 0, 1, 2), initOf("b", "c", cat, 0), fileOf("a", "hello", false), signalOf("b", "HUP"),
		initOf("none", "none", cat, 1), initOf("empty", "c", nil), fileOf("a", "", true), fileOf("b", "", true),
	}}
	if err := s.run(t); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string][]string{
		"b": {"started", "exit 1", "done"}, "none": {"started", "1.", "exit 255", "done"}, "empty": {"started", "exit 255", "done"},
	} {
		if got := s.story(id); !slices.Equal(got, want) {
			t.Errorf("process %s: %q, want %q", id, got, want)
		}
	}
	got := s.story("a")
	slices.Sort(got[2:4]) // the ends of two outputs
	if want := []string{"started", "1:hello", "1.", "2.", "exit 0", "done"}; !slices.Equal(got, want) {
		t.Errorf("process a: %q, want %q", got, want)
	}
}

func TestStreamsThatBreak(t *testing.T) {
	t.Parallel()
	cat := []string{"cat"}
	for name, c := range map[string]struct {
		in   []*gwpb.ExecMessage
		code codes.Code
	}{
		"a message for no process": {[]*gwpb.ExecMessage{fileOf("", "", true)}, codes.InvalidArgument},
		"an unknown process":       {[]*gwpb.ExecMessage{fileOf("a", "", true)}, codes.NotFound},
		"a process twice":          {[]*gwpb.ExecMessage{initOf("a", "c", cat, 0), initOf("a", "c", cat)}, codes.AlreadyExists},
		"input after its end":      {[]*gwpb.ExecMessage{initOf("a", "c", cat, 0, 1), fileOf("a", "", true), initOf("b", "c", cat, 3)}, codes.InvalidArgument},
		"a signal of no name":      {[]*gwpb.ExecMessage{initOf("a", "c", cat, 0), signalOf("a", "NONE")}, codes.InvalidArgument},
		"no message":               {[]*gwpb.ExecMessage{initOf("a", "c", cat, 0), {ProcessID: "a"}}, codes.InvalidArgument},
		"nothing at all":           {[]*gwpb.ExecMessage{nil}, codes.InvalidArgument},
	} {
		if err := (&fakeStream{in: c.in}).run(t); grpcerrors.Code(WithCode(err)) != c.code {
			t.Errorf("%s: %v, want %v", name, err, c.code)
		}
	}
	gone := &fakeStream{gone: true, in: []*gwpb.ExecMessage{initOf("a", "c", cat, 0, 1)}}
	if err := gone.run(t); err == nil {
		t.Error("a client that goes away ends its stream well")
	}
	deaf := &fakeStream{gone: true, deaf: true, in: []*gwpb.ExecMessage{initOf("a", "c", cat, 0, 1), fileOf("a", "x", false)}}
	if err := deaf.run(t); err == nil {
		t.Error("a client that hears nothing ends its stream well")
	}
}

// FuzzExecStream feeds a stream of messages. None may panic or leave a process behind, and each process that was begun has a
// story in order.
func FuzzExecStream(f *testing.F) {
	seed := func(list ...*gwpb.ExecMessage) {
		var all []byte
		for _, m := range list {
			b, err := proto.Marshal(m)
			if err != nil {
				f.Fatal(err)
			}
			all = append(append(all, byte(len(b))), b...)
		}
		f.Add(all)
	}
	seed(initOf("a", "c", []string{"cat"}, 0, 1, 2), fileOf("a", "x", true))
	seed(initOf("a", "c", []string{"cat"}, 0), signalOf("a", "KILL"), fileOf("a", "x", false))
	seed(&gwpb.ExecMessage{ProcessID: "a", Input: &gwpb.ExecMessage_Resize{}}, &gwpb.ExecMessage{ProcessID: "a", Input: &gwpb.ExecMessage_Init{}})
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &fakeStream{gone: true}
		for len(b) > 0 && len(s.in) < 100 {
			n := min(int(b[0]), len(b)-1)
			if m := new(gwpb.ExecMessage); proto.Unmarshal(b[1:1+n], m) == nil {
				s.in = append(s.in, m)
			}
			b = b[1+n:]
		}
		ids := map[string]bool{}
		for _, m := range s.in {
			ids[m.ProcessID] = true
		}
		_ = s.run(t)
		for id := range ids {
			words := s.story(id)
			if len(words) > 0 && words[0] != "started" || slices.Index(words, "done") >= 0 && slices.Index(words, "done") != len(words)-1 {
				t.Errorf("process %q: %q", id, words)
			}
		}
	})
}
