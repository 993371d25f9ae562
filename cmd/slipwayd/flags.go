package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"github.com/moby/sys/userns"
	"github.com/slipwaybuild/slipway/daemon/config"
	"github.com/spf13/pflag"
)

const (
	defaultAddr   = "unix:///run/slipway/slipway.sock"
	defaultRoot   = "/var/lib/slipway"
	defaultConfig = "/etc/slipway/slipwayd.toml"
)

// flags are what the command line says; it wins over the configuration file. Names are buildkitd's.
type flags struct {
	set func(name string) bool // whether a flag was given

	addr, entitlements            []string
	root, config, group           string
	debug, trace, rootless, noCDI bool
	cdiDirs                       []string
	logFormat, logLevel, debugAdd string
	tls                           config.TLS
	idle                          time.Duration
	worker                        workerFlags
	containerd                    containerdFlags
}

func (f *flags) register(fs *pflag.FlagSet) {
	f.set = fs.Changed
	fs.StringArrayVar(&f.addr, "addr", nil, "address to listen on: unix:///path, tcp://host:port or fd:// (default "+defaultAddr+"); may be repeated")
	fs.StringVar(&f.root, "root", "", "directory of all state (default "+defaultRoot+")")
	fs.StringVar(&f.config, "config", "", "configuration file, TOML with the keys of buildkitd.toml (default "+defaultConfig+", if it exists; $BUILDKITD_CONFIG)")
	fs.BoolVar(&f.debug, "debug", false, "log more")
	fs.BoolVar(&f.trace, "trace", false, "log everything")
	fs.StringVar(&f.logFormat, "log-format", "", "how to log: text or json (default text)")
	fs.StringVar(&f.logLevel, "log-level", "", "what to log: error, warn, info, debug or trace (default info; $BUILDKITD_LOG_LEVEL)")
	fs.StringVar(&f.group, "group", "", "group, by name or number, that the unix sockets belong to")
	fs.StringVar(&f.debugAdd, "debugaddr", "", "address for profiles and metrics: host:port or unix:///path ($BUILDKITD_DEBUGADDR)")
	fs.StringVar(&f.tls.Cert, "tlscert", "", "certificate for tcp addresses")
	fs.StringVar(&f.tls.Key, "tlskey", "", "key of the certificate")
	fs.StringVar(&f.tls.CA, "tlscacert", "", "CA whose certificates clients must have")
	fs.StringArrayVar(&f.entitlements, "allow-insecure-entitlement", nil, "what builds may be granted: network.host, security.insecure, device; may be repeated")
	fs.BoolVar(&f.noCDI, "cdi-disabled", false, "steps get no devices of the host (Container Device Interface)")
	fs.StringArrayVar(&f.cdiDirs, "cdi-spec-dir", nil, "directory of CDI specifications; may be repeated")
	fs.BoolVar(&f.rootless, "rootless", userns.RunningInUserNS(), "the daemon is root of a user namespace only")
	fs.DurationVar(&f.idle, "idle-timeout", 0, "leave after so long without connections and builds; 0 is never")
	f.worker.register(fs)
	f.containerd.register(fs)
}

// load reads the configuration and puts the flags over it.
func (f *flags) load() (c *config.Config, warnings []string, err error) {
	if os.Geteuid() != 0 {
		return nil, nil, errors.New("slipwayd needs root, of the host or of a user namespace: it mounts file systems and starts containers")
	}
	path := cmp.Or(f.config, os.Getenv("BUILDKITD_CONFIG"))
	c, warnings, err = config.Load(cmp.Or(path, defaultConfig), path != "")
	if err != nil {
		return nil, nil, err
	}
	if err := f.apply(c); err != nil {
		return nil, nil, err
	}
	more, err := f.worker.apply(f.set, &c.Worker.OCI)
	if err != nil {
		return nil, nil, err
	}
	if err := c.Validate(); err != nil {
		return nil, nil, err
	}
	if c.Root, err = filepath.Abs(c.Root); err != nil {
		return nil, nil, fmt.Errorf("root: %w", err)
	}
	return c, append(warnings, more...), nil
}

func (f *flags) apply(c *config.Config) error {
	c.Root = cmp.Or(f.root, c.Root, defaultRoot)
	if len(f.addr) > 0 {
		c.GRPC.Address = f.addr
	}
	if len(c.GRPC.Address) == 0 {
		c.GRPC.Address = []string{defaultAddr}
	}
	c.GRPC.DebugAddress = cmp.Or(f.debugAdd, os.Getenv("BUILDKITD_DEBUGADDR"), c.GRPC.DebugAddress)
	c.GRPC.TLS.Cert = cmp.Or(f.tls.Cert, c.GRPC.TLS.Cert)
	c.GRPC.TLS.Key = cmp.Or(f.tls.Key, c.GRPC.TLS.Key)
	c.GRPC.TLS.CA = cmp.Or(f.tls.CA, c.GRPC.TLS.CA)
	if f.group != "" {
		gid, err := groupID(f.group)
		if err != nil {
			return err
		}
		c.GRPC.GID = &gid
	}
	if len(f.entitlements) > 0 {
		c.Entitlements = f.entitlements
	}
	if f.set("cdi-disabled") {
		c.CDI.Disabled = &f.noCDI
	}
	if len(f.cdiDirs) > 0 {
		c.CDI.SpecDirs = f.cdiDirs
	}
	if f.set("rootless") || f.rootless {
		c.Worker.OCI.Rootless = f.rootless
	}
	if f.idle != 0 {
		c.Slipway.IdleTimeout.Duration = f.idle
	}
	f.applyLog(c)
	return f.containerd.apply(&c.Worker.Containerd)
}

func (f *flags) applyLog(c *config.Config) {
	c.Log.Format = cmp.Or(f.logFormat, c.Log.Format)
	c.Log.Level = cmp.Or(f.logLevel, os.Getenv("BUILDKITD_LOG_LEVEL"), c.Log.Level)
	if f.debug {
		c.Log.Level = "debug"
	}
	if f.trace {
		c.Log.Level = "trace"
	}
}

func groupID(name string) (int, error) {
	if n, err := strconv.Atoi(name); err == nil {
		return n, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("group of the sockets: %w", err)
	}
	return strconv.Atoi(g.Gid)
}
