package containerd

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	usualPatience = 30 * time.Second
	firstPause    = 20 * time.Millisecond
	longestPause  = time.Second
)

// LostError is returned when containerd did not answer for as long as calls are repeated.
type LostError struct {
	// Address is containerd's socket.
	Address string
	// Err is the last attempt's; it may be a LostError as a gRPC status. It is not found by errors.Is: containerd's packages wait
	// for as long as one says that something is unavailable.
	Err error
}

func (e *LostError) Error() string {
	// What went through a connection of ours says it already.
	if text := e.Err.Error(); strings.Contains(text, e.Address) && strings.Contains(text, "does not answer") {
		return text
	}
	return fmt.Sprintf("containerd at %s does not answer: %s", e.Address, status.Convert(e.Err).Message())
}

// GRPCStatus is what clients of ours learn.
func (e *LostError) GRPCStatus() *status.Status { return status.New(codes.Unavailable, e.Error()) }

// retry repeats what fails because containerd does not answer.
type retry struct {
	address  string
	patience time.Duration
}

type noRetry struct{}

// withoutRetry returns a context under which nothing is repeated.
func withoutRetry(ctx context.Context) context.Context {
	return context.WithValue(ctx, noRetry{}, true)
}

// unary is the interceptor of all calls but streams. A call that containerd had done before the connection broke is made a second
// time: its callers are ready to be told that what they make is there, and what they remove is not.
func (r retry) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	call := func() error { return invoke(ctx, method, req, reply, cc, opts...) }
	if ctx.Value(noRetry{}) != nil {
		return call()
	}
	return r.do(ctx, func(err error) bool { return status.Code(err) == codes.Unavailable }, call)
}

// native is do for calls whose errors are no longer gRPC's.
func (r retry) native(ctx context.Context, call func() error) error {
	return r.do(ctx, errdefs.IsUnavailable, call)
}

// do repeats call while broken says that its error is a lack of answer.
func (r retry) do(ctx context.Context, broken func(error) bool, call func() error) error {
	end := time.Now().Add(r.patience)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := call()
		switch {
		case err == nil || !broken(err):
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case time.Now().After(end):
			return &LostError{Address: r.address, Err: err}
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
