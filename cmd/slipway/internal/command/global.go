package command

import (
	"errors"
	"fmt"
	"os"

	"github.com/slipwaybuild/slipway/cmd/slipway/internal/address"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/dockerhost"
	"github.com/spf13/pflag"
)

// global are the flags of every command: which daemon is meant.
type global struct {
	addr          string // of slipwayd
	host, context string // of Docker's daemon
	flags         *pflag.FlagSet
	args          []string // the whole command line, for a process that goes on with it
}

func (g *global) register(fs *pflag.FlagSet) {
	g.flags = fs
	fs.StringVar(&g.addr, "addr", address.Default(), "address of slipwayd, "+address.Help+" (or $"+address.Env+")")
	fs.StringVarP(&g.host, "host", "H", "", "build with Docker's daemon at this address: unix://, tcp:// or ssh:// (or $"+dockerhost.EnvHost+")")
	fs.StringVar(&g.context, "context", "", "build with Docker's daemon of this docker context (or $"+dockerhost.EnvContext+")")
}

// docker returns Docker's daemon if that is the one meant, else nil. A flag counts more than the environment, and in the environment
// slipwayd's own variable more than docker's. With nothing said it is slipwayd.
func (g *global) docker() (*dockerhost.Endpoint, error) {
	said := 0
	for _, f := range []string{"addr", "host", "context"} {
		if g.flags.Changed(f) {
			said++
		}
	}
	switch {
	case said > 1:
		return nil, errors.New("only one of --addr, --host and --context can be given")
	case g.flags.Changed("host"):
		return dockerhost.ByHost(g.host)
	case g.flags.Changed("context"):
		return dockerhost.ByContext(g.context)
	case said > 0 || os.Getenv(address.Env) != "":
		return nil, nil
	}
	return dockerhost.FromEnvironment()
}

// slipwaydOnly refuses a command that Docker's daemon is not asked by.
func (g *global) slipwaydOnly(instead string) error {
	e, err := g.docker()
	if err != nil {
		return usageError{err}
	}
	if e != nil {
		return usageError{fmt.Errorf("this asks slipwayd, and %s means Docker's daemon at %s: use %s, or say --addr", e.Origin, e.Host, instead)}
	}
	return nil
}
