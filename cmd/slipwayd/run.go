package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	containerdlog "github.com/containerd/log"
	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/moby/buildkit/util/archutil"
	"github.com/slipwaybuild/slipway/cmd/internal/version"
	"github.com/slipwaybuild/slipway/daemon"
	"github.com/slipwaybuild/slipway/daemon/config"
	"github.com/slipwaybuild/slipway/daemon/debug"
	"github.com/slipwaybuild/slipway/daemon/server"
)

// tracesTime is how long a collector may hold up the end.
const tracesTime = 3 * time.Second

func run(ctx context.Context, f *flags) (err error) {
	c, warnings, err := f.load()
	if err != nil {
		return err
	}
	level := new(slog.LevelVar)
	log, err := logger(c, level)
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
	if age := c.System.PlatformsCacheMaxAge; age != nil {
		archutil.CacheMaxAge = age.Duration // before anybody asks
	}
	// The sockets come first: of two daemons the second must not touch the first one's state.
	doors, err := openDoors(ctx, c.GRPC, log)
	if err != nil {
		return err
	}
	tracing, err := newTracing(ctx)
	if err != nil {
		return errors.Join(err, doors.close())
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
		return errors.Join(err, doors.close())
	}
	defer func() { err = errors.Join(err, engine.Close()) }()
	if c.GRPC.DebugAddress != "" {
		d, err := debug.Serve(ctx, c.GRPC.DebugAddress, debug.Handler(engine))
		if err != nil {
			return errors.Join(err, doors.close())
		}
		defer func() { err = errors.Join(err, d.Close()) }()
	}
	settings := newSettings(c)
	stop := onHangup(func() { reload(f, level, doors, settings, log) })
	defer stop()
	notify(log, sd.SdNotifyReady)
	defer notify(log, sd.SdNotifyStopping)
	log.Info("slipwayd is ready", "version", version.String(), "address", c.GRPC.Address, "root", c.Root, "layers", engine.Realisation())
	return server.Run(ctx, server.Options{
		Engine: engine, Listeners: doors.listeners, Version: version.String(), Settings: settings.get,
		IdleTimeout: c.Slipway.IdleTimeout.Duration, ResumeGrace: c.Slipway.ResumeGrace.Duration, Logger: log, Tracer: engine.Tracer(), Spans: tracing.sinks,
	})
}

func logger(c *config.Config, level *slog.LevelVar) (*slog.Logger, error) {
	l, err := logLevel(c)
	if err != nil {
		return nil, err
	}
	level.Set(l)
	o := &slog.HandlerOptions{Level: level}
	if c.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, o)), nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o)), nil
}

func logLevel(c *config.Config) (slog.Level, error) {
	if c.Debug || c.Trace {
		return slog.LevelDebug, nil
	}
	switch c.Log.Level {
	case "", "info":
		return slog.LevelInfo, nil
	case "error", "fatal", "panic":
		return slog.LevelError, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "debug", "trace":
		return slog.LevelDebug, nil
	}
	return 0, fmt.Errorf("log.level: %q is none of error, warn, info, debug, trace", c.Log.Level)
}
