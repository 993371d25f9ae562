// Package config reads the daemon's configuration: TOML with the keys of buildkitd.toml. A key of buildkitd.toml that has no
// meaning here is a warning; a key that exists in neither is an error naming the nearest that does.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/BurntSushi/toml"
)

// Config is the daemon's configuration. The zero value of a key means its default.
type Config struct {
	Debug        bool                `toml:"debug"`
	Trace        bool                `toml:"trace"`
	Root         string              `toml:"root"`
	Entitlements []string            `toml:"insecure-entitlements"`
	Log          Log                 `toml:"log"`
	GRPC         GRPC                `toml:"grpc"`
	DNS          DNS                 `toml:"dns"`
	Worker       Workers             `toml:"worker"`
	Registries   map[string]Registry `toml:"registry"`
	History      History             `toml:"history"`
	System       System              `toml:"system"`
	Frontend     Frontends           `toml:"frontend"`
	Features     Features            `toml:"features"`
	Slipway      Slipway             `toml:"slipway"`
}

// Log says how the daemon logs: Format "text" or "json", Level "error", "warn", "info", "debug" or "trace".
type Log struct {
	Format string `toml:"format"`
	Level  string `toml:"level"`
}

// GRPC is where the daemon listens ("unix:///path") and whom its sockets belong to.
type GRPC struct {
	Address []string `toml:"address"`
	UID     *int     `toml:"uid"`
	GID     *int     `toml:"gid"`
}

// DNS overrides resolv.conf in steps.
type DNS struct {
	Nameservers   []string `toml:"nameservers"`
	Options       []string `toml:"options"`
	SearchDomains []string `toml:"searchDomains"`
}

// Workers holds the one worker there is.
type Workers struct {
	OCI OCI `toml:"oci"`
}

// OCI is how steps run, and how much disk may be used.
type OCI struct {
	Labels              map[string]string `toml:"labels"`
	Platforms           []string          `toml:"platforms"`
	Snapshotter         string            `toml:"snapshotter"`
	GC                  *bool             `toml:"gc"`
	GCKeepStorage       DiskSpace         `toml:"gckeepstorage"`
	ReservedSpace       DiskSpace         `toml:"reservedSpace"`
	MaxUsedSpace        DiskSpace         `toml:"maxUsedSpace"`
	NetworkMode         string            `toml:"networkMode"`
	Binary              string            `toml:"binary"`
	DefaultCgroupParent string            `toml:"defaultCgroupParent"`
	ApparmorProfile     string            `toml:"apparmor-profile"`
	MaxParallelism      int               `toml:"max-parallelism"`
}

// Registry says how one registry host is reached.
type Registry struct {
	Mirrors      []string  `toml:"mirrors"`
	PlainHTTP    *bool     `toml:"http"`
	Insecure     *bool     `toml:"insecure"`
	RootCAs      []string  `toml:"ca"`
	KeyPairs     []KeyPair `toml:"keypair"`
	TLSConfigDir []string  `toml:"tlsconfigdir"`
}

// KeyPair is a client certificate for a registry.
type KeyPair struct {
	Key         string `toml:"key"`
	Certificate string `toml:"cert"`
}

// History is how many finished builds are kept, and for how long.
type History struct {
	MaxAge     *Duration `toml:"maxAge"`
	MaxEntries *int64    `toml:"maxEntries"`
}

// System holds limits of the whole daemon.
type System struct {
	MaxRegistryConcurrency *int `toml:"maxRegistryConcurrency"`
}

// Frontends configures frontends, or switches them off.
type Frontends struct {
	Dockerfile FrontendSwitch `toml:"dockerfile.v0"`
	Gateway    Gateway        `toml:"gateway.v0"`
}

// Gateway is the frontend that runs images.
type Gateway struct {
	Enabled *bool `toml:"enabled"`
	// AllowedRepositories are the only ones that images may come from; empty allows all.
	AllowedRepositories []string `toml:"allowedRepositories"`
}

// FrontendSwitch switches one frontend off.
type FrontendSwitch struct {
	Enabled *bool `toml:"enabled"`
}

// Features are those of dockerd's daemon.json.
type Features struct {
	// BuildKit is what docker builds with when its user did not choose: true, and nothing, is the session-based builder, false
	// the classic one.
	BuildKit *bool `toml:"buildkit"`
}

// Slipway holds the keys that buildkitd.toml does not have.
type Slipway struct {
	// IdleTimeout ends a daemon without connections and builds; 0 is never.
	IdleTimeout Duration `toml:"idleTimeout"`
	// Layers chooses how layers are realised: "erofs", "unpacked", or "" for the best the host can do.
	Layers string `toml:"layers"`
	// EngineForClassic lets clients that ask for the classic builder, or for none by name, be built by the engine.
	EngineForClassic bool `toml:"engineForClassic"`
}

// Load reads the file at path. A missing file is an error only if must is set. Warnings name keys that have no meaning here.
func Load(path string, must bool) (c *Config, warnings []string, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !must {
		return &Config{}, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read configuration: %w", err)
	}
	c, warnings, err = Parse(string(b))
	if err != nil {
		return nil, nil, fmt.Errorf("configuration %s: %w", path, err)
	}
	return c, warnings, nil
}

// Parse reads TOML.
func Parse(text string) (*Config, []string, error) {
	c := &Config{}
	md, err := toml.Decode(text, c)
	if err != nil {
		var pe toml.ParseError
		if errors.As(err, &pe) {
			return nil, nil, fmt.Errorf("line %d: %s", pe.Position.Line, pe.Message)
		}
		return nil, nil, err
	}
	var warnings []string
	var unknown []error
	for _, key := range md.Undecoded() {
		name := key.String()
		if hasParent(md.Undecoded(), key) {
			continue
		}
		if meaningless(key) {
			warnings = append(warnings, fmt.Sprintf("configuration key %s has no meaning here and is ignored", name))
			continue
		}
		unknown = append(unknown, unknownKey(key))
	}
	if len(unknown) > 0 {
		return nil, nil, errors.Join(unknown...)
	}
	return c, warnings, c.validate()
}

func (c *Config) validate() error {
	for _, e := range c.Entitlements {
		switch e {
		case "network.host", "security.insecure", "device":
		default:
			return fmt.Errorf("insecure-entitlements: %q is none of network.host, security.insecure, device", e)
		}
	}
	switch c.Log.Format {
	case "", "text", "json":
	default:
		return fmt.Errorf("log.format: %q is neither text nor json", c.Log.Format)
	}
	switch c.Worker.OCI.NetworkMode {
	case "", "auto", "host", "none":
	default:
		return fmt.Errorf("worker.oci.networkMode: %q is none of auto, host, none", c.Worker.OCI.NetworkMode)
	}
	for _, a := range c.GRPC.Address {
		if !strings.HasPrefix(a, "unix://") {
			return fmt.Errorf("grpc.address: %q: only unix:// addresses are served", a)
		}
	}
	return nil
}

// hasParent tells whether a table above key is itself undecoded: it alone is reported then.
func hasParent(keys []toml.Key, key toml.Key) bool {
	for _, k := range keys {
		if len(k) < len(key) && key[:len(k)].String() == k.String() {
			return true
		}
	}
	return false
}
