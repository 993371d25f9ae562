// Package resume makes one reliable connection of many unreliable ones, so that what runs on it (gRPC, sessions, file sync) never
// notices that a network went away for a while.
//
// # Words
//
// A [Conn] is the connection that lasts. A path is one connection below it, such as a TCP connection; at most one at a time.
// A Conn without a path is parked: it takes writes as far as its window goes, and reads wait. A token, random and known to both
// ends alone, names a Conn when a path is replaced.
//
// # Protocol
//
// A path begins with an HTTP/1.1 request, POST [Path] with an upgrade to [Protocol], because that passes where the daemon's other
// protocols pass, and because a daemon that does not know it says so. A request without a token asks for a new Conn, the answer has its
// token and how long it may be parked. A request with a token says how many bytes its sender has received so far; so does the
// answer; and both ends go on from there.
//
// After it frames are exchanged, of a header of 13 bytes (kind, offset, length; big endian) and data:
//
//   - data: bytes of the stream, the first of which is number offset;
//   - ack: all bytes before offset were read by the peer's application, so as many more may be sent. It is also how each end shows every few
//     seconds that it is there. An end that hears nothing for longer takes the path for dead, which loses nothing but a round trip;
//   - close: the stream ends at offset. The peer answers with a close of its own.
//
// Each byte is delivered once and in order. What was sent and not acknowledged is kept, one window at most; who writes more waits.
//
// # Who may resume, and for how long
//
// A path is accepted only from the [peer.Identity] that the first one had. The daemon keeps a parked Conn for its grace time. If the client's process
// is known to be at the other end of a unix socket and has ended, nothing is waited for: nobody will come back.
package resume
