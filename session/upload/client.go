package upload

import (
	"errors"
	"fmt"
	"io"
	"path"
	"sync"

	pb "github.com/moby/buildkit/session/upload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/slipwaybuild/slipway/session"
)

// Service is the client's end. It may be used concurrently.
type Service struct {
	pb.UnimplementedUploadServer
	mu      sync.Mutex
	readers map[string]io.ReadCloser // guarded by mu
}

var _ session.Attachable = (*Service)(nil)

// New returns a service without uploads.
func New() *Service { return &Service{readers: map[string]io.ReadCloser{}} }

// Add offers r and returns the URL to pull it by. r is closed once it was pulled, or by Close.
func (s *Service) Add(r io.ReadCloser) string {
	id := session.NewID()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readers[id] = r
	return "http://" + Host + "/" + id
}

// Close closes the readers that nobody has pulled.
func (s *Service) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for id, r := range s.readers {
		errs = append(errs, r.Close())
		delete(s.readers, id)
	}
	return errors.Join(errs...)
}

// Register implements session.Attachable.
func (s *Service) Register(srv *grpc.Server) { pb.RegisterUploadServer(srv, s) }

// Pull implements the service: the last element of the path is the id.
func (s *Service) Pull(stream pb.Upload_PullServer) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	id := ""
	if v := md.Get(keyPath); len(v) > 0 {
		id = path.Base(v[0])
	}
	s.mu.Lock()
	r, ok := s.readers[id]
	delete(s.readers, id)
	s.mu.Unlock()
	if !ok {
		return status.Errorf(codes.NotFound, "no http response from session for %s", id)
	}
	err := copyTo(stream, r)
	if cerr := r.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("upload %s: %w", id, cerr)
	}
	return err
}

func copyTo(stream pb.Upload_PullServer, r io.Reader) error {
	buf := make([]byte, chunk)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := stream.Send(&message{Data: buf[:n]}); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return status.Errorf(codes.Unknown, "read the upload: %v", err)
		}
	}
}
