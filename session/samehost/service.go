package samehost

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Path is where the daemon takes descriptors, and Protocol what a connection is upgraded to there.
const (
	Path     = "/samehost"
	Protocol = "slipway-samehost"
)

// ErrUnavailable is returned when the client's files cannot be reached this way. The error around it says why.
var ErrUnavailable = errors.New("not on the same host")

// The service that clients offer on their session. Its one method passes a descriptor and, where that is for writing, returns
// when the daemon has written.
const (
	serviceName = "slipway.samehost.v1.SameHost"
	methodName  = "Pass"
	fullMethod  = "/" + serviceName + "/" + methodName
)

// nonceSize is in bytes.
const nonceSize = 32

type nonce [nonceSize]byte

func newNonce() (n nonce) {
	_, _ = rand.Read(n[:]) // never fails: crypto/rand ends the program rather
	return n
}

// ask is what the daemon wants of the client. It travels as JSON in a BytesValue.
type ask struct {
	Nonce []byte `json:"nonce"`
	// Dir names a directory that the client offers for reading.
	Dir *string `json:"dir,omitempty"`
	// Output is the number of an export.
	Output *int `json:"output,omitempty"`
	// About is what the exporter says of a stream.
	About map[string]string `json:"about,omitempty"`
}

// kind is what a descriptor is.
type kind byte

const (
	kindDir    kind = 'd' // a directory to read
	kindTree   kind = 't' // a directory to write a tree into
	kindStream kind = 's' // a file to write a stream to
	kindHave   kind = 'h' // no descriptor: the client has the export already
)

// Flags of a descriptor.
const (
	flagResetOwner = 1 << iota // of a directory to read: everything is root's
	flagKeepOwner              // of a directory to write: owners are kept
	flagDelete                 // of a directory to write: what is not in the tree goes
)

// A message is what goes with the descriptor: the nonce, the kind and the flags.
const messageSize = nonceSize + 2

// The daemon answers the message with one byte, and so does whoever ends an export.
const (
	answerTaken   = 'y'
	answerRefused = 'n'
	answerWhole   = 'w' // all was written
)

type handler interface {
	pass(ctx context.Context, a ask) error
}

// desc is the service by hand: messages as small as these need no definition of their own.
var desc = grpc.ServiceDesc{
	ServiceName: serviceName,
	HandlerType: (*handler)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: methodName,
		Handler: func(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
			var in wrapperspb.BytesValue
			if err := dec(&in); err != nil {
				return nil, err
			}
			handle := func(ctx context.Context, req any) (any, error) {
				var a ask
				if err := json.Unmarshal(req.(*wrapperspb.BytesValue).GetValue(), &a); err != nil {
					return nil, fmt.Errorf("same host: %w", err)
				}
				return &emptypb.Empty{}, srv.(handler).pass(ctx, a)
			}
			if interceptor == nil {
				return handle(ctx, &in)
			}
			return interceptor(ctx, &in, &grpc.UnaryServerInfo{Server: srv, FullMethod: fullMethod}, handle)
		},
	}},
}

// call asks the client.
func call(ctx context.Context, cc grpc.ClientConnInterface, a ask) error {
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return cc.Invoke(ctx, fullMethod, wrapperspb.Bytes(b), &emptypb.Empty{})
}
