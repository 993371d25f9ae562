package ssh

import (
	"context"
	"fmt"
	"io"
	"net"

	pb "github.com/moby/buildkit/session/sshforward"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/internal/streamconn"
)

// keyID is the metadata key that names the forward.
const keyID = "buildkit.ssh.id"

var codec = streamconn.Codec[pb.BytesMessage]{
	Wrap:   func(b []byte) *pb.BytesMessage { return &pb.BytesMessage{Data: b} },
	Unwrap: func(m *pb.BytesMessage) []byte { return m.GetData() },
}

// New returns the service that forwards these agents. Key files are read, and agents asked for their keys, so that what is wrong with
// them, and that they have none, is said before anything is built. ctx is not kept.
func New(ctx context.Context, configs []Config) (session.Attachable, error) {
	s := &service{forwards: make(map[string]*forward, len(configs))}
	for _, c := range configs {
		if c.ID == "" {
			c.ID = DefaultID
		}
		if _, ok := s.forwards[c.ID]; ok {
			return nil, fmt.Errorf("duplicate agent ID %q", c.ID)
		}
		f, err := open(c)
		if err == nil {
			err = f.checkKeys(ctx)
		}
		if err != nil {
			return nil, fmt.Errorf("ssh forward %q: %w", c.ID, err)
		}
		s.forwards[c.ID] = f
	}
	return s, nil
}

type service struct {
	pb.UnimplementedSSHServer
	forwards map[string]*forward // not changed after New
}

func (s *service) Register(srv *grpc.Server) { pb.RegisterSSHServer(srv, s) }

func (s *service) find(id string) (*forward, error) {
	if id == "" {
		id = DefaultID
	}
	if f, ok := s.forwards[id]; ok {
		return f, nil
	}
	return nil, status.Errorf(codes.NotFound, "unset ssh forward key %s", id)
}

// CheckAgent implements the service: the agent is there and answers.
func (s *service) CheckAgent(ctx context.Context, req *pb.CheckAgentRequest) (*pb.CheckAgentResponse, error) {
	f, err := s.find(req.GetID())
	if err != nil {
		return nil, err
	}
	if _, err := f.check(ctx); err != nil {
		return nil, status.Errorf(codes.FailedPrecondition, "ssh agent %s: %v", req.GetID(), err)
	}
	return &pb.CheckAgentResponse{}, nil
}

// ForwardAgent implements the service: the stream is one connection to the agent.
func (s *service) ForwardAgent(stream pb.SSH_ForwardAgentServer) error {
	id := ""
	md, _ := metadata.FromIncomingContext(stream.Context())
	if v := md.Get(keyID); len(v) > 0 {
		id = v[0]
	}
	f, err := s.find(id)
	if err != nil {
		return err
	}
	conn := streamconn.New(stream, codec, nil, nil)
	defer func() { _ = conn.Close() }() // never fails
	err = f.serve(stream.Context(), conn)
	conn.Drain()
	if err != nil {
		return status.Errorf(codes.Unknown, "ssh agent %s: %v", id, err)
	}
	return nil
}

// serve lets the peer talk to the agent or socket until it has enough.
func (f *forward) serve(ctx context.Context, conn *streamconn.Conn) error {
	if f.keys != nil {
		return serveKeys(f.keys, conn)
	}
	sock, err := f.dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = sock.Close() }() // what was to be said has been
	// A step that goes away must not leave an agent's prompt behind.
	defer context.AfterFunc(ctx, func() { _ = sock.Close() })()
	if f.raw {
		return passThrough(conn, sock)
	}
	return readOnly(conn, sock)
}

// serveKeys is readOnly on an agent that lives here.
func serveKeys(keys agent.Agent, conn io.ReadWriter) error {
	here, there := net.Pipe()
	var g errgroup.Group
	g.Go(func() error {
		_ = agent.ServeAgent(keys, there) // ends when here is closed
		return there.Close()
	})
	err := readOnly(conn, here)
	_ = here.Close() // a pipe's cannot fail
	if werr := g.Wait(); err == nil {
		err = werr
	}
	return err
}

// duplex is a connection whose directions end apart.
type duplex interface {
	io.ReadWriter
	CloseWrite() error
}

// passThrough copies in both directions until both have ended.
func passThrough(a *streamconn.Conn, sock net.Conn) error {
	b, ok := sock.(duplex)
	if !ok {
		return fmt.Errorf("raw forward: a %T cannot be closed in one direction", sock)
	}
	var g errgroup.Group
	g.Go(func() error { return copyOneWay(b, a) })
	err := copyOneWay(a, b)
	// When the socket's side has ended the peer cannot be answered any more, so what it still says is not waited for. It must hear
	// all of the answer, though.
	a.Drain()
	_ = a.Close()
	_ = sock.Close()
	_ = g.Wait() // it was just cut off
	return err
}

func copyOneWay(to, from duplex) error {
	_, err := io.Copy(to, from)
	if cerr := to.CloseWrite(); err == nil {
		err = cerr
	}
	return err
}
