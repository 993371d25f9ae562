package main

import (
	"errors"
	"os"
	"time"

	"github.com/slipwaybuild/slipway/daemon/config"
	"github.com/spf13/pflag"
)

const (
	defaultAddr   = "unix:///run/slipway/slipway.sock"
	defaultRoot   = "/var/lib/slipway"
	defaultConfig = "/etc/slipway/slipwayd.toml"
)

// flags are what the command line says; it wins over the configuration file.
type flags struct {
	addr   []string
	root   string
	config string
	debug  bool
	idle   time.Duration
}

func (f *flags) register(fs *pflag.FlagSet) {
	fs.StringArrayVar(&f.addr, "addr", nil, "address to listen on, unix:///path (default "+defaultAddr+"); may be repeated")
	fs.StringVar(&f.root, "root", "", "directory of all state (default "+defaultRoot+")")
	fs.StringVar(&f.config, "config", "", "configuration file, TOML with the keys of buildkitd.toml (default "+defaultConfig+", if it exists)")
	fs.BoolVar(&f.debug, "debug", false, "log more")
	fs.DurationVar(&f.idle, "idle-timeout", 0, "leave after so long without connections and builds; 0 is never")
}

// load reads the configuration and puts the flags over it.
func (f *flags) load() (*config.Config, []string, error) {
	path, must := f.config, true
	if path == "" {
		path, must = defaultConfig, false
	}
	c, warnings, err := config.Load(path, must)
	if err != nil {
		return nil, nil, err
	}
	if f.root != "" {
		c.Root = f.root
	}
	if c.Root == "" {
		c.Root = defaultRoot
	}
	if len(f.addr) > 0 {
		c.GRPC.Address = f.addr
	}
	if len(c.GRPC.Address) == 0 {
		c.GRPC.Address = []string{defaultAddr}
	}
	if f.debug {
		c.Log.Level = "debug"
	}
	if f.idle != 0 {
		c.Slipway.IdleTimeout.Duration = f.idle
	}
	if os.Geteuid() != 0 {
		return nil, nil, errors.New("slipwayd needs root: it mounts file systems and starts containers")
	}
	return c, warnings, nil
}
