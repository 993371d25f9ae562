package daemon

import (
	"maps"
	"slices"

	"github.com/slipwaybuild/slipway/daemon/config"
	"github.com/slipwaybuild/slipway/daemon/events"
	"github.com/slipwaybuild/slipway/solver/executor"
)

// RegistryInfo is what clients may know of how a registry is reached.
type RegistryInfo struct {
	Host    string
	Mirrors []string
	// Insecure says that any certificate or plain HTTP is taken.
	Insecure bool
}

// Root is the directory of all state.
func (e *Engine) Root() string { return e.root }

// Limits tells what steps can be limited by on this host, as it is now.
func (e *Engine) Limits() executor.Limits { return e.executor.Limits() }

// Events is where what happens to images and to the cache is told.
func (e *Engine) Events() *events.Hub { return &e.events }

// Registries lists the registries that the configuration says something about, by name.
func (e *Engine) Registries() []RegistryInfo { return slices.Clone(e.registries) }

func registryInfo(hosts map[string]config.Registry) []RegistryInfo {
	var out []RegistryInfo
	for _, name := range slices.Sorted(maps.Keys(hosts)) {
		h := hosts[name]
		on := func(b *bool) bool { return b != nil && *b }
		out = append(out, RegistryInfo{Host: name, Mirrors: slices.Clone(h.Mirrors), Insecure: on(h.Insecure) || on(h.PlainHTTP)})
	}
	return out
}
