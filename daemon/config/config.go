// Package config reads the daemon's configuration: TOML with the keys of buildkitd.toml. A key that is not known, or has no meaning
// here, is ignored as by buildkitd, but not without a warning, which names the nearest key that exists: it may be a slip, or belong
// to a newer buildkitd.
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
	Debug        bool     `toml:"debug"`
	Trace        bool     `toml:"trace"`
	Root         string   `toml:"root"`
	Entitlements []string `toml:"insecure-entitlements"`
	// ProvenanceEnvDir holds *.json files with what provenance tells of where builds run.
	ProvenanceEnvDir string              `toml:"provenanceEnvDir"`
	Log              Log                 `toml:"log"`
	GRPC             GRPC                `toml:"grpc"`
	DNS              DNS                 `toml:"dns"`
	CDI              CDI                 `toml:"cdi"`
	Worker           Workers             `toml:"worker"`
	Registries       map[string]Registry `toml:"registry"`
	History          History             `toml:"history"`
	System           System              `toml:"system"`
	Frontend         Frontends           `toml:"frontend"`
	Features         Features            `toml:"features"`
	Slipway          Slipway             `toml:"slipway"`
}

// Log says how the daemon logs: Format "text" or "json", Level "error", "warn", "info", "debug" or "trace".
type Log struct {
	Format string `toml:"format"`
	Level  string `toml:"level"`
}

// GRPC is where the daemon listens ("unix:///path", "tcp://host:port", "fd://") and whom its sockets belong to.
type GRPC struct {
	Address []string `toml:"address"`
	// DebugAddress is where profiles and metrics are served, "host:port" or "unix:///path"; empty is nowhere.
	DebugAddress string `toml:"debugAddress"`
	UID          *int   `toml:"uid"`
	GID          *int   `toml:"gid"`
	TLS          TLS    `toml:"tls"`
}

// TLS is for tcp addresses: paths of PEM files. With a CA, clients must have a certificate of it.
type TLS struct {
	Cert string `toml:"cert"`
	Key  string `toml:"key"`
	CA   string `toml:"ca"`
}

// DNS overrides resolv.conf in steps.
type DNS struct {
	Nameservers   []string `toml:"nameservers"`
	Options       []string `toml:"options"`
	SearchDomains []string `toml:"searchDomains"`
}

// CDI says where devices that steps may ask for are described.
type CDI struct {
	Disabled *bool `toml:"disabled"`
	// SpecDirs hold the descriptions; empty is /etc/cdi, /var/run/cdi and /etc/buildkit/cdi.
	SpecDirs []string `toml:"specDirs"`
	// AutoAllowed names devices, or kinds of them, that builds may use without having been granted them.
	AutoAllowed []string `toml:"autoAllowed"`
}

// Workers holds the one worker there is.
type Workers struct {
	OCI OCI `toml:"oci"`

	// Containerd runs no steps: it may keep images.
	Containerd Containerd `toml:"containerd"`
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
	// PlatformsCacheMaxAge is how long it is believed what programs the host runs; negative is forever.
	PlatformsCacheMaxAge *Duration `toml:"platformsCacheMaxAge"`
	// MaxRegistryConcurrency is how many connections to one registry are open at a time.
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
	// ResumeGrace is how long a client may be without a connection and go on as if it had not been; 0 is two minutes.
	ResumeGrace Duration `toml:"resumeGrace"`
	// Layers chooses how layers are realised: "erofs", "unpacked", or "" for the best the host can do.
	Layers string `toml:"layers"`
	// EngineForClassic lets clients that ask for the classic builder, or for none by name, be built by the engine.
	EngineForClassic bool `toml:"engineForClassic"`
	// SecretLeaks is what happens when the value of a secret is found in what is built: [RefuseLeaks] or [WarnOfLeaks]; "" is the former.
	SecretLeaks string `toml:"secretLeaks"`
}

// Values of SecretLeaks.
const (
	RefuseLeaks = "refuse"
	WarnOfLeaks = "warn"
)

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
	for _, key := range md.Undecoded() {
		if hasParent(md.Undecoded(), key) {
			continue
		}
		if meaningless(key) {
			warnings = append(warnings, fmt.Sprintf("configuration key %s has no meaning here and is ignored", key))
			continue
		}
		warnings = append(warnings, unknownKey(key))
	}
	return c, warnings, c.Validate()
}

// Validate checks values that the types alone do not. It is for who changed a configuration after it was read.
func (c *Config) Validate() error {
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
	switch c.Slipway.SecretLeaks {
	case "", RefuseLeaks, WarnOfLeaks:
	default:
		return fmt.Errorf("slipway.secretLeaks: %q is neither %s nor %s", c.Slipway.SecretLeaks, RefuseLeaks, WarnOfLeaks)
	}
	if n := c.System.MaxRegistryConcurrency; n != nil && *n <= 0 {
		return fmt.Errorf("system.maxRegistryConcurrency: %d is not greater than zero", *n)
	}
	if t := c.GRPC.TLS; (t.Cert == "") != (t.Key == "") || t.CA != "" && t.Cert == "" {
		return errors.New("grpc.tls: cert and key go together, and ca goes with them")
	}
	for _, a := range c.GRPC.Address {
		if err := checkAddress(a); err != nil {
			return fmt.Errorf("grpc.address: %w", err)
		}
	}
	return c.Worker.OCI.validate()
}

func checkAddress(a string) error {
	scheme, _, ok := strings.Cut(a, "://")
	switch {
	case !ok:
		return fmt.Errorf("%q says no protocol, did you mean unix://%s?", a, a)
	case scheme == "unix", scheme == "tcp", scheme == "fd":
		return nil
	case scheme == "npipe":
		return fmt.Errorf("%q: named pipes are of Windows, and this daemon is not", a)
	}
	return fmt.Errorf("%q: only unix://, tcp:// and fd:// addresses are served", a)
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
