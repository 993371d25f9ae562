package network

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	cni "github.com/containerd/go-cni"
	"github.com/vishvananda/netlink"
)

// What Bridge uses unless configured otherwise.
const (
	DefaultBridge = "slipway0"
	DefaultSubnet = "10.10.0.0/16"
)

func (o Options) bridge() string { return cmp.Or(o.BridgeName, DefaultBridge) }

// setup is all that namespaces are connected with. It is kept on disk for who has to undo it.
type setup struct {
	PluginDirs []string
	// Config is a list of CNI networks, or a single one.
	Config json.RawMessage
	List   bool
	// Bridge is the name of our own bridge; empty with a configuration of the operator's.
	Bridge string `json:",omitempty"`
}

func (n *Network) setup() (*setup, error) {
	s := &setup{PluginDirs: n.o.PluginDirs}
	if n.mode == CNI {
		b, err := os.ReadFile(n.o.ConfigPath)
		if err != nil {
			return nil, fmt.Errorf("read CNI configuration: %w", err)
		}
		var list struct{ Plugins json.RawMessage }
		if err := json.Unmarshal(b, &list); err != nil {
			return nil, fmt.Errorf("CNI configuration %s: %w", n.o.ConfigPath, err)
		}
		s.Config, s.List = b, list.Plugins != nil
		return s, nil
	}
	s.List, s.Bridge = true, n.o.bridge()
	var err error
	s.Config, err = n.o.bridgeConfig()
	return s, err
}

// load gives the configuration to the CNI library, which checks it.
func (s *setup) load() (cni.CNI, error) {
	with := cni.WithConf
	if s.List {
		with = cni.WithConfListBytes
	}
	c, err := cni.New(cni.WithInterfacePrefix("eth"), cni.WithPluginDir(s.PluginDirs), with(s.Config))
	if err != nil {
		return nil, fmt.Errorf("CNI configuration: %w", err)
	}
	return c, nil
}

func (s *setup) save(path string) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func loadSetup(path string) (*setup, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s := &setup{}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return s, nil
}

// plugin is one entry of a CNI list. Addresses are recorded in the plugins' usual place, so that daemons that share a bridge do not
// give the same one twice.
type plugin map[string]any

// bridgeConfig connects steps to a bridge, behind the host's addresses. Where the firewall plugin is installed it lets their packets
// pass a host that forwards none by default.
func (o Options) bridgeConfig() ([]byte, error) {
	subnet, err := netip.ParsePrefix(cmp.Or(o.BridgeSubnet, DefaultSubnet))
	if err != nil {
		return nil, fmt.Errorf("bridge subnet: %w", err)
	}
	for _, name := range []string{"bridge", "host-local"} {
		if !o.hasPlugin(name) {
			return nil, fmt.Errorf("CNI plugin %q is not in %s: install the plugins, for example with `apt-get install containernetworking-plugins`",
				name, strings.Join(o.PluginDirs, ", "))
		}
	}
	plugins := []plugin{{
		"type": "bridge", "bridge": o.bridge(), "isDefaultGateway": true, "ipMasq": true,
		"ipam": plugin{"type": "host-local", "ranges": [][]plugin{{{"subnet": subnet.String()}}}},
	}}
	if o.hasPlugin("firewall") {
		plugins = append(plugins, plugin{"type": "firewall", "backend": "iptables", "ingressPolicy": "same-bridge"})
	}
	return json.Marshal(plugin{"cniVersion": "1.0.0", "name": "slipway-" + o.bridge(), "plugins": plugins})
}

func (o Options) hasPlugin(name string) bool {
	for _, dir := range o.PluginDirs {
		if fi, err := os.Stat(filepath.Join(dir, name)); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return true
		}
	}
	return false
}

// alias marks a bridge as made by a daemon, in the kernel itself: it tells every daemon of this host, also after a crash, that the
// bridge may be removed when nobody is on it any more.
const alias = "slipwayd"

func bridgeExists(name string) bool {
	_, err := netlink.LinkByName(name)
	return err == nil
}

func markBridge(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", name, err)
	}
	if err := netlink.LinkSetAlias(link, alias); err != nil {
		return fmt.Errorf("mark bridge %s: %w", name, err)
	}
	return nil
}

// removeBridge removes a bridge that a daemon made and that has no ports.
func removeBridge(name string) error {
	link, err := netlink.LinkByName(name)
	if _, ok := errors.AsType[netlink.LinkNotFoundError](err); ok {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", name, err)
	}
	ports, err := os.ReadDir(filepath.Join("/sys/class/net", name, "brif"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list ports of bridge %s: %w", name, err)
	}
	if link.Attrs().Alias != alias || len(ports) > 0 {
		return nil
	}
	if err := netlink.LinkDel(link); err != nil {
		return fmt.Errorf("remove bridge %s: %w", name, err)
	}
	return nil
}
