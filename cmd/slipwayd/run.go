package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	containerdlog "github.com/containerd/log"
	"github.com/slipwaybuild/slipway/cmd/internal/version"
	"github.com/slipwaybuild/slipway/daemon"
	"github.com/slipwaybuild/slipway/daemon/config"
	"github.com/slipwaybuild/slipway/daemon/listen"
	"github.com/slipwaybuild/slipway/daemon/server"
)

// tracesTime is how long a collector may hold up the end.
const tracesTime = 3 * time.Second

func run(ctx context.Context, f flags) (err error) {
	c, warnings, err := f.load()
	if err != nil {
		return err
	}
	log, err := logger(c)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		log.Warn(w)
	}
	// Containerd's packages have a logger of their own; what they warn of, such as a file system without fs-verity, is no news.
	if err := containerdlog.SetLevel("error"); err != nil {
		return err
	}
	// The sockets come first: of two daemons the second must not touch the first one's state.
	listeners, err := listenAll(c.GRPC)
	if err != nil {
		return err
	}
	tracing, err := newTracing(ctx)
	if err != nil {
		return errors.Join(err, closeAll(listeners))
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), tracesTime)
		defer cancel()
		if endErr := tracing.end(ctx); endErr != nil {
			log.Warn("send the last traces", "error", endErr)
		}
	}()
	engine, err := daemon.Open(ctx, daemon.Options{Config: c, Version: version.String(), Logger: log, Tracer: tracing.tracer, Spans: tracing.recorder})
	if err != nil {
		return errors.Join(err, closeAll(listeners))
	}
	defer func() { err = errors.Join(err, engine.Close()) }()
	settings := newSettings(c)
	defer settings.reloadOnSignal(f, log)()
	log.Info("slipwayd is ready", "version", version.String(), "address", c.GRPC.Address, "root", c.Root, "layers", engine.Realisation())
	return server.Run(ctx, server.Options{
		Engine: engine, Listeners: listeners, Version: version.String(), Settings: settings.get,
		IdleTimeout: c.Slipway.IdleTimeout.Duration, Logger: log, Tracer: engine.Tracer(), Spans: tracing.sinks,
	})
}

func listenAll(c config.GRPC) ([]net.Listener, error) {
	var list []net.Listener
	for _, addr := range c.Address {
		l, err := listen.Unix(addr, listen.Options{UID: c.UID, GID: c.GID})
		if err != nil {
			return nil, errors.Join(err, closeAll(list))
		}
		list = append(list, l)
	}
	return list, nil
}

func closeAll(list []net.Listener) error {
	var errs []error
	for _, l := range list {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

func logger(c *config.Config) (*slog.Logger, error) {
	level := slog.LevelInfo
	switch c.Log.Level {
	case "", "info":
	case "error", "fatal", "panic":
		level = slog.LevelError
	case "warn", "warning":
		level = slog.LevelWarn
	case "debug", "trace":
		level = slog.LevelDebug
	default:
		return nil, fmt.Errorf("log.level: %q is none of error, warn, info, debug, trace", c.Log.Level)
	}
	if c.Debug || c.Trace {
		level = slog.LevelDebug
	}
	o := &slog.HandlerOptions{Level: level}
	if c.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, o)), nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o)), nil
}
