package server

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/slipwaybuild/slipway/session/peer"
)

// limits are those on what comes over HTTP before it has a meaning, so that clients that send slowly, too much or nothing hold
// nothing for long. Bodies have limits where they are read.
type limits struct {
	// header is how long a request's header may take, and headerBytes its size.
	header      time.Duration
	headerBytes int
	// idle is how long a connection is kept for the next request.
	idle time.Duration
}

func usualLimits() limits {
	return limits{header: 30 * time.Second, headerBytes: 1 << 20, idle: 3 * time.Minute}
}

func newHTTP(h http.Handler, l limits, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: h,
		// Who asks is known once, by the connection.
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return peer.NewContext(ctx, peer.Of(c))
		},
		ReadHeaderTimeout: l.header,
		MaxHeaderBytes:    l.headerBytes,
		IdleTimeout:       l.idle,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}
