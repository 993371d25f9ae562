package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	cni "github.com/containerd/go-cni"
)

// Mode is what a step's network is that asks for no other.
type Mode string

// The modes. Auto becomes one of the others: CNI if there is a configuration at its usual place, else Host.
const (
	Auto   Mode = "auto"
	Host   Mode = "host"
	None   Mode = "none"
	CNI    Mode = "cni"
	Bridge Mode = "bridge"
)

// Options goes with [Open].
type Options struct {
	// Root is a directory of the network's own.
	Root string
	Mode Mode // "" is Auto
	// ConfigPath is the operator's CNI configuration, a network (.conf, .json) or a list of them (.conflist).
	ConfigPath string
	// PluginDirs hold the CNI plugins.
	PluginDirs []string
	// PoolSize is how many namespaces are held ready.
	PoolSize int
	// BridgeName and BridgeSubnet are for Bridge; empty are [DefaultBridge] and [DefaultSubnet].
	BridgeName, BridgeSubnet string
	Logger                   *slog.Logger
}

// Network makes namespaces. It is safe for concurrent use.
type Network struct {
	o    Options
	log  *slog.Logger
	mode Mode
	cni  cni.CNI // nil for Host and None

	mu     sync.Mutex
	idle   []*Namespace
	taken  int
	closed bool
	fill   context.Context
	stop   context.CancelFunc
	wg     sync.WaitGroup
}

// Open removes what a killed daemon left below the root and gets the network ready, making one namespace to see that it can be
// made. The caller closes it.
func Open(ctx context.Context, o Options) (*Network, error) {
	n := &Network{o: o, log: o.Logger}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(n.nsDir(), 0o700); err != nil {
		return nil, fmt.Errorf("make network directory: %w", err)
	}
	if err := n.recover(ctx); err != nil {
		n.log.Warn("clean up networks of a former daemon", "error", err)
	}
	mode, err := choose(o)
	if err != nil {
		return nil, err
	}
	n.mode = mode
	if mode == Host || mode == None {
		return n, nil
	}
	setup, err := n.setup()
	if err != nil {
		return nil, fmt.Errorf("network %s: %w", mode, err)
	}
	if n.cni, err = setup.load(); err != nil {
		return nil, fmt.Errorf("network %s: %w", mode, err)
	}
	if err := setup.save(n.setupFile()); err != nil {
		return nil, fmt.Errorf("network %s: %w", mode, err)
	}
	n.fill, n.stop = context.WithCancel(context.Background())
	if err := n.try(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("network %s does not work on this host: %w", mode, err), n.Close())
	}
	return n, nil
}

// choose settles what auto is. The environment variable is BuildKit's way to ask for a bridge.
func choose(o Options) (Mode, error) {
	switch o.Mode {
	case Host, None, CNI, Bridge:
		return o.Mode, nil
	case Auto, "":
	default:
		return "", fmt.Errorf("network mode %q is none of auto, bridge, cni, host, none", o.Mode)
	}
	if yes, err := strconv.ParseBool(os.Getenv("BUILDKIT_NETWORK_BRIDGE_AUTO")); err == nil && yes {
		return Bridge, nil
	}
	if _, err := os.Stat(o.ConfigPath); err == nil && o.ConfigPath != "" {
		return CNI, nil
	}
	return Host, nil
}

// try makes a namespace for the first step. It does so alone: the first one makes the bridge, and what the CNI library sets up when it
// is first used.
func (n *Network) try(ctx context.Context) error {
	existed := true
	if n.mode == Bridge {
		existed = bridgeExists(n.o.bridge())
	}
	ns, err := n.make(ctx)
	if err != nil {
		return err
	}
	if !existed {
		if err := markBridge(n.o.bridge()); err != nil {
			return errors.Join(err, ns.destroy())
		}
	}
	n.keep(ns) // nobody else is here yet: there is room
	return nil
}

// Mode is what auto became: never Auto or "".
func (n *Network) Mode() Mode { return n.mode }

// Label is what clients are told of the mode, in BuildKit's words.
func (n *Network) Label() string {
	if n.mode == Bridge {
		return string(CNI)
	}
	return string(n.mode)
}

// Own says whether steps get a namespace from Take.
func (n *Network) Own() bool { return n.cni != nil }

// Take returns a connected namespace, which the caller releases.
func (n *Network) Take(ctx context.Context) (*Namespace, error) {
	n.mu.Lock()
	if n.closed || n.cni == nil {
		n.mu.Unlock()
		return nil, errors.New("network is closed, or has no namespaces")
	}
	n.taken++
	var ns *Namespace
	if last := len(n.idle) - 1; last >= 0 {
		ns, n.idle = n.idle[last], n.idle[:last]
	}
	n.refill()
	n.mu.Unlock()
	if ns != nil {
		return ns, nil
	}
	ns, err := n.make(ctx)
	if err != nil {
		n.mu.Lock()
		n.taken--
		n.mu.Unlock()
	}
	return ns, err
}

// refill makes one namespace for the pool if it is short of one. It is called under mu.
func (n *Network) refill() {
	if len(n.idle) >= n.o.PoolSize {
		return
	}
	n.wg.Go(func() {
		ns, err := n.make(n.fill)
		if err != nil {
			n.log.Warn("make a network ahead of its use", "error", err)
			return
		}
		if !n.keep(ns) {
			if err := ns.destroy(); err != nil {
				n.log.Warn("remove network", "error", err)
			}
		}
	})
}

// spare is how many namespaces are kept for another step without a pool being configured.
const spare = 2

// keep puts a namespace among those for other steps, if there is room.
func (n *Network) keep(ns *Namespace) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || len(n.idle) >= max(n.o.PoolSize, spare) {
		return false
	}
	n.idle = append(n.idle, ns)
	return true
}

// Close removes what is kept, and the bridge if it was ours and nobody is left on it. It is an error if a step still has a namespace.
func (n *Network) Close() error {
	n.mu.Lock()
	n.closed = true
	idle, taken := n.idle, n.taken
	n.idle = nil
	n.mu.Unlock()
	if n.cni == nil {
		return nil
	}
	n.stop()
	n.wg.Wait()
	var errs []error
	for _, ns := range idle {
		errs = append(errs, ns.destroy())
	}
	if n.mode == Bridge {
		errs = append(errs, removeBridge(n.o.bridge()))
	}
	if taken > 0 {
		errs = append(errs, fmt.Errorf("%d networks of steps were not given back", taken))
	}
	return errors.Join(errs...)
}

func (n *Network) nsDir() string     { return filepath.Join(n.o.Root, "ns") }
func (n *Network) setupFile() string { return filepath.Join(n.o.Root, "setup.json") }
