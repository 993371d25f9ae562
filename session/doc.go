// Package session is the line between a client and the daemon.
//
// The client's [Session] is a gRPC server reached over a connection that the client dialled; the daemon's [Manager] is the gRPC
// client at the other end and finds it by id. Through it the daemon reaches what only the client has: one [Attachable] each.
//
// # Words
//
// A handshake opens a session: headers that say its id, what the client calls it, and which methods it offers. It arrives through
// one of two doors, an HTTP upgrade ([Manager.HandleHTTP]) or a stream of BuildKit's Control service (package dial), and past the door
// all sessions are alike. A [Caller] is the daemon's end of one session. A [Group] is a list of ids any of which may serve; work
// that several builds share keeps a Group and no Caller, so it does not depend on one client.
//
// # Life
//
// A session may be asked for before it arrives; then it is waited for. It is over when its connection is, which is noticed at
// once and not by asking, so a client that reconnects with the same id is welcome. A client that is connected and silent is
// judged with patience, see [Health]. One that offers no health service is watched by HTTP/2 pings instead, because not to
// offer one is no sign of illness.
//
// # Whose
//
// A session belongs to the client whose connection it came over, as far as the transport can tell (package peer), and serves the builds of that
// client only, whoever else learns its id. Connections that break are none of this package's business: package resume keeps them.
//
// The wire is BuildKit's, so that its clients use our daemon and our client its daemon.
package session
