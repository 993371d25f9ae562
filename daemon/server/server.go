// Package server runs the daemon's doors: it accepts connections, hands each to the door that speaks its protocol, and ends
// them all in order.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/opentracing/opentracing-go"
	"github.com/slipwaybuild/slipway/daemon"
	"github.com/slipwaybuild/slipway/daemon/control"
	"github.com/slipwaybuild/slipway/daemon/engineapi"
	"github.com/slipwaybuild/slipway/daemon/listen"
	"github.com/slipwaybuild/slipway/daemon/traces"
	"github.com/slipwaybuild/slipway/session/interceptors"
	"github.com/slipwaybuild/slipway/session/peer"
	"github.com/slipwaybuild/slipway/session/resume"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// shutdownTime is how long requests may take to end once the daemon stops.
const shutdownTime = 5 * time.Second

// Options goes with [Run].
type Options struct {
	Engine    *daemon.Engine
	Listeners []net.Listener
	Version   string
	// Settings are those that may change while the daemon runs; nil is none.
	Settings func() engineapi.Settings
	// IdleTimeout ends Run when nobody was connected and nothing was built for so long; 0 is never.
	IdleTimeout time.Duration
	// ResumeGrace is how long a client may be without a connection and go on as if it had not been; 0 is two minutes.
	ResumeGrace time.Duration
	Logger      *slog.Logger
	Tracer      opentracing.Tracer
	// Spans are where spans that clients hand over go.
	Spans []sdktrace.SpanExporter
}

// Run serves until ctx ends or the daemon is idle, then ends all connections and builds and returns. It closes the listeners.
func Run(ctx context.Context, o Options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	split := listen.NewSplit(o.Logger)
	sessions := o.Engine.Sessions()
	rpc := newGRPC(o)
	lasting := resume.NewServer(resume.ServerOptions{
		Accept: func(c net.Conn) { split.Take(ctx, c) }, Grace: o.ResumeGrace, Logger: o.Logger,
	})
	httpServer := newHTTP(engineapi.New(engineapi.Options{
		Engine: o.Engine, Images: o.Engine.Images(), Sessions: sessions, Resume: lasting, SameHost: o.Engine.SameHost(), GRPC: split.HTTP2, Settings: o.Settings, Version: o.Version, Logger: o.Logger,
	}), usualLimits(), o.Logger)
	conns := &counter{}
	eg, egCtx := errgroup.WithContext(ctx)
	for _, l := range o.Listeners {
		eg.Go(func() error { return split.Serve(egCtx, &countingListener{Listener: l, counter: conns}) })
	}
	eg.Go(func() error { return ignoreClosed(rpc.Serve(split.HTTP2)) })
	eg.Go(func() error { return ignoreClosed(httpServer.Serve(split.HTTP1)) })
	eg.Go(func() error {
		leave := waitIdle(egCtx, o.IdleTimeout, func() bool { return conns.value() > 0 || o.Engine.Active() > 0 })
		if leave {
			o.Logger.Info("nothing to do, leaving", "idle", o.IdleTimeout)
		}
		return stop(o.Listeners, split, rpc, httpServer, sessions.Close, lasting.Close)
	})
	return eg.Wait()
}

func newGRPC(o Options) *grpc.Server {
	opts := interceptors.Server(interceptors.Options{Logger: o.Logger, Tracer: o.Tracer})
	opts = append(opts,
		grpc.Creds(peer.Credentials()),
		// Innermost, so that the codes and details of whatever failed reach the log as they reach the client.
		grpc.ChainUnaryInterceptor(grpcerrors.UnaryServerInterceptor),
		grpc.ChainStreamInterceptor(grpcerrors.StreamServerInterceptor),
		grpc.InitialWindowSize(1<<20), grpc.InitialConnWindowSize(4<<20),
		// The engine is closed after the server: no build may still be winding down then.
		grpc.WaitForHandlers(true),
	)
	s := grpc.NewServer(opts...)
	control.New(o.Engine, o.Engine.Sessions(), o.Version).Register(s)
	control.NewBridge(o.Engine).Register(s)
	o.Engine.Contents().Register(s)
	traces.NewCollector(o.Spans...).Register(s)
	healthpb.RegisterHealthServer(s, health.NewServer())
	return s
}

// stop ends accepting first, then what was accepted. Sessions end before requests: builds that wait for a client see it gone.
func stop(listeners []net.Listener, split *listen.Split, rpc *grpc.Server, httpServer *http.Server, closeSessions, closeLasting func() error) error {
	var errs []error
	for _, l := range listeners {
		errs = append(errs, ignoreClosed(l.Close()))
	}
	errs = append(errs, split.HTTP1.Close(), split.HTTP2.Close(), closeSessions())
	rpc.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	if err := httpServer.Shutdown(ctx); err != nil {
		errs = append(errs, httpServer.Close())
	}
	// Last, so that clients hear what was still to be said.
	errs = append(errs, closeLasting())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stop serving: %w", err)
	}
	return nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}
