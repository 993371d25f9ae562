// Package listen is where connections come in: the daemon's sockets (unix, tcp, with TLS or without, or passed by the service manager),
// and the fork behind them that tells HTTP/1.1 (the Engine API) from HTTP/2 with prior knowledge (gRPC) by a connection's first bytes.
package listen
