// Package peer knows who is at the other end of a connection, as far as the transport can tell: the user of a unix socket's peer,
// the name in a client's certificate, nothing on plain tcp.
//
// What a client is told apart by is its [Identity]; sessions and builds belong to one. Connections are looked at through what they
// are wrapped in: a wrapper has a method NetConn, as tls.Conn does, or one that returns the Identity, as a connection that
// outlives its transport must.
package peer

import (
	"context"
	"crypto/tls"
	"net"
	"strconv"

	"google.golang.org/grpc/credentials"
	grpcpeer "google.golang.org/grpc/peer"
)

// Identity names a client as its transport does: "unix:1000" or "tls:CN=ann". Clients that nothing tells apart share Unknown.
type Identity string

// Identities that mean something to the daemon itself.
const (
	// Unknown is who comes over plain tcp, and the daemon itself.
	Unknown Identity = ""
	// Root is the superuser of this host.
	Root Identity = "unix:0"
)

// Identified is a connection that knows its peer.
type Identified interface{ PeerIdentity() Identity }

// Of returns who is at the other end. A TLS handshake must be over.
func Of(conn net.Conn) Identity {
	for conn != nil {
		switch c := conn.(type) {
		case Identified:
			return c.PeerIdentity()
		case *net.UnixConn:
			uid, _, ok := credentialsOf(c)
			if !ok {
				return Unknown
			}
			return Identity("unix:" + strconv.FormatUint(uint64(uid), 10))
		case *tls.Conn:
			// Without a CA to check against, a certificate proves nothing.
			if chains := c.ConnectionState().VerifiedChains; len(chains) > 0 {
				return Identity("tls:" + chains[0][0].Subject.String())
			}
		}
		conn = inner(conn)
	}
	return Unknown
}

// inner is what conn wraps, nil if that is nothing we can see.
func inner(conn net.Conn) net.Conn {
	if w, ok := conn.(interface{ NetConn() net.Conn }); ok {
		return w.NetConn()
	}
	return nil
}

type key struct{}

// NewContext returns a context of work done for a client.
func NewContext(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, key{}, id)
}

// FromContext returns the client that work is done for: what NewContext was given, or the client of the gRPC call that ctx belongs
// to, if the server has [Credentials].
func FromContext(ctx context.Context) Identity {
	if id, ok := ctx.Value(key{}).(Identity); ok {
		return id
	}
	if p, ok := grpcpeer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(authInfo); ok {
			return info.id
		}
	}
	return Unknown
}

// Credentials are those of a gRPC server over connections that are secured elsewhere, if at all: they note who came.
func Credentials() credentials.TransportCredentials { return transport{} }

type transport struct{}

type authInfo struct {
	credentials.CommonAuthInfo
	id Identity
}

// AuthType is for gRPC's own books.
func (authInfo) AuthType() string { return "peer" }

func (transport) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c, authInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}, Of(c)}, nil
}

func (t transport) ClientHandshake(_ context.Context, _ string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return t.ServerHandshake(c)
}

func (transport) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "insecure"}
}

func (transport) Clone() credentials.TransportCredentials { return transport{} }

func (transport) OverrideServerName(string) error { return nil }
