package main

import (
	"sync/atomic"

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
