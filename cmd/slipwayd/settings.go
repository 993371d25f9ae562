package main

import (
	"log/slog"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"github.com/slipwaybuild/slipway/daemon/config"
	"github.com/slipwaybuild/slipway/daemon/engineapi"
)

// settings are what of the configuration may change while the daemon runs.
type settings struct {
	now atomic.Pointer[engineapi.Settings]
}

func newSettings(c *config.Config) *settings {
	s := &settings{}
	s.set(c)
	return s
}

func (s *settings) set(c *config.Config) {
	s.now.Store(&engineapi.Settings{
		BuildKit: c.Features.BuildKit, EngineForClassic: c.Slipway.EngineForClassic,
		Debug: c.Debug || c.Trace || c.Log.Level == "debug" || c.Log.Level == "trace",
	})
}

func (s *settings) get() engineapi.Settings { return *s.now.Load() }

// reloadOnSignal reads the configuration again whenever SIGHUP says so. One that cannot be read changes nothing. The function
// it returns ends that.
func (s *settings) reloadOnSignal(f flags, log *slog.Logger) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range signals {
			c, warnings, err := f.load()
			if err != nil {
				log.Error("configuration not reloaded", "error", err)
				continue
			}
			for _, w := range warnings {
				log.Warn(w)
			}
			s.set(c)
			log.Info("configuration reloaded; keys that are not read again keep their values")
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
		<-done
	}
}
