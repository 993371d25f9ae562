package network

import (
	"encoding/json"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pluginDirs is where this host has CNI plugins; a test that needs them is skipped where it has none.
func pluginDirs(t *testing.T) []string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes network namespaces")
	}
	for _, dir := range []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"} {
		if _, err := os.Stat(filepath.Join(dir, "bridge")); err == nil {
			return []string{dir}
		}
	}
	t.Skip("needs CNI plugins: apt-get install containernetworking-plugins")
	return nil
}

// bridged are options for a bridge of this test alone.
func bridged(t *testing.T, subnet string) Options {
	t.Helper()
	dirs := pluginDirs(t)
	if _, err := exec.LookPath("iptables"); err != nil {
		t.Skipf("needs iptables: %v", err)
	}
	// The firewall plugin keeps rules per name of a bridge for good: a name that changes would make more with every run.
	name := "swtest" + subnet[strings.LastIndex(subnet, ".")-1:strings.LastIndex(subnet, ".")]
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}); err != nil {
		t.Skipf("this kernel makes no bridges: %v", err)
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(link); err != nil {
		t.Fatal(err)
	}
	return Options{
		Root: rootDir(t), Mode: Bridge, PluginDirs: dirs, BridgeName: name, BridgeSubnet: subnet,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// rootDir is a network's directory, in which nothing may be mounted when the test ends. What is, is unmounted.
func rootDir(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	t.Cleanup(func() {
		left, err := filepath.Glob(filepath.Join(root, "ns", "*"))
		if err != nil {
			t.Error(err)
		}
		for _, path := range left {
			t.Errorf("%s is left", path)
			if err := removeNamespace(path); err != nil {
				t.Error(err)
			}
		}
	})
	return root
}

func open(t *testing.T, o Options) *Network {
	t.Helper()
	n, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// in runs a command in a namespace.
func in(t *testing.T, ns *Namespace, command ...string) string {
	t.Helper()
	out, err := exec.Command("nsenter", append([]string{"--net=" + ns.Path()}, command...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", command, err, out)
	}
	return string(out)
}

// nothingLeft looks everywhere a network leaves traces.
func nothingLeft(t *testing.T, o Options) {
	t.Helper()
	if bridgeExists(o.bridge()) {
		t.Error("the bridge is still there")
	}
	if left, _ := os.ReadDir(filepath.Join(o.Root, "ns")); len(left) > 0 {
		t.Errorf("namespaces left: %v", left)
	}
	if mounts, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(mounts), o.Root) {
		t.Error("a mount is left")
	}
	rules, err := exec.Command("iptables-save").Output()
	if err != nil {
		t.Fatal(err)
	}
	if prefix := strings.TrimSuffix(o.BridgeSubnet, "0/24"); strings.Contains(string(rules), prefix) || strings.Contains(string(rules), `"slipway-`+o.bridge()) {
		t.Errorf("packet filter rules left:\n%s", rules)
	}
	leases, _ := filepath.Glob("/var/lib/cni/networks/slipway-" + o.bridge() + "/" + strings.TrimSuffix(o.BridgeSubnet, "0/24") + "*")
	if len(leases) > 0 {
		t.Errorf("addresses left: %v", leases)
	}
	if err := os.RemoveAll("/var/lib/cni/networks/slipway-" + o.bridge()); err != nil {
		t.Error(err)
	}
}

func TestBridge(t *testing.T) {
	o := bridged(t, "10.213.1.0/24")
	o.PoolSize = 1
	n := open(t, o)
	defer nothingLeft(t, o)
	if n.Mode() != Bridge || n.Label() != "cni" || !n.Own() {
		t.Errorf("mode %s, label %s", n.Mode(), n.Label())
	}
	a, err := n.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := n.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if a.Path() == b.Path() {
		t.Error("two steps have one network")
	}
	for _, ns := range []*Namespace{a, b} {
		if out := in(t, ns, "ip", "-o", "addr"); !strings.Contains(out, "127.0.0.1/8") || !strings.Contains(out, "10.213.1.") {
			t.Errorf("no addresses: %s", out)
		}
		if out := in(t, ns, "ip", "route"); !strings.Contains(out, "default via 10.213.1.1") {
			t.Errorf("no way out: %s", out)
		}
	}
	if err := a.Release(true); err != nil {
		t.Error(err)
	}
	again, err := n.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Release(false); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(again.Path()); err == nil {
		t.Error("a namespace that a step changed was kept")
	}
	// What a step does to its addresses does not keep rules from being removed.
	in(t, b, "ip", "addr", "add", "10.99.99.99/32", "dev", "eth0")
	in(t, b, "sh", "-c", "ip addr del $(ip -o -4 addr show eth0 | awk '/10.213/{print $4}') dev eth0")
	if err := b.Release(false); err != nil {
		t.Error(err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

func TestWhatAKilledDaemonLeftIsRemoved(t *testing.T) {
	o := bridged(t, "10.213.2.0/24")
	killed := open(t, o)
	if _, err := killed.Take(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := killed.Take(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Nothing of it is closed. A restart of the host leaves nothing but the name.
	if err := os.WriteFile(filepath.Join(killed.nsDir(), "slipway-old"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	o.Mode = Host
	next := open(t, o)
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, o)
}

func TestCloseTellsWhatWasNotGivenBack(t *testing.T) {
	o := bridged(t, "10.213.3.0/24")
	n := open(t, o)
	ns, err := n.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err == nil || !strings.Contains(err.Error(), "1 networks") {
		t.Errorf("got %v", err)
	}
	if err := ns.Release(true); err != nil {
		t.Error(err)
	}
	if err := removeBridge(o.bridge()); err != nil {
		t.Error(err)
	}
	nothingLeft(t, o)
}

func TestBridgeOfOthersStays(t *testing.T) {
	o := bridged(t, "10.213.4.0/24")
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: o.bridge()}}); err != nil {
		t.Fatal(err)
	}
	if err := open(t, o).Close(); err != nil {
		t.Error(err)
	}
	link, err := netlink.LinkByName(o.bridge())
	if err != nil {
		t.Fatalf("a bridge that was there before is gone: %v", err)
	}
	if err := netlink.LinkDel(link); err != nil {
		t.Error(err)
	}
	nothingLeft(t, o)
}

func TestOperatorsConfiguration(t *testing.T) {
	dirs := pluginDirs(t)
	path := filepath.Join(t.TempDir(), "cni.json")
	config := `{"cniVersion": "0.4.0", "name": "swtest", "type": "ptp", "ipam": {"type": "host-local", "subnet": "10.213.5.0/24", "dataDir": "` + t.TempDir() + `"}}`
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	n := open(t, Options{Root: rootDir(t), Mode: Auto, ConfigPath: path, PluginDirs: dirs})
	if n.Mode() != CNI {
		t.Errorf("auto with a configuration became %s", n.Mode())
	}
	ns, err := n.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if out := in(t, ns, "ip", "-o", "addr", "show", "eth0"); !strings.Contains(out, "10.213.5.") {
		t.Error(out)
	}
	if err := ns.Release(true); err != nil {
		t.Error(err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

func TestAutoWithoutAnythingIsTheHosts(t *testing.T) {
	n := open(t, Options{Root: t.TempDir(), ConfigPath: "/nowhere"})
	if n.Mode() != Host || n.Own() {
		t.Errorf("got %s", n.Mode())
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

func TestOpenErrors(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.conflist")
	if err := os.WriteFile(bad, []byte(`{"plugins": 3`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Mode: "lan"}, "none of auto, bridge, cni, host, none"},
		{Options{Mode: Bridge, PluginDirs: []string{"/nowhere"}}, "containernetworking-plugins"},
		{Options{Mode: Bridge, BridgeSubnet: "10.1.1"}, "bridge subnet"},
		{Options{Mode: CNI, ConfigPath: "/nowhere/cni.json"}, "/nowhere/cni.json"},
		{Options{Mode: CNI, ConfigPath: bad}, "unexpected end"},
	} {
		c.o.Root = rootDir(t)
		if _, err := Open(t.Context(), c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want %q", c.o, err, c.want)
		}
	}
}

func FuzzSetup(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"bridge"}]}`), true)
	f.Add([]byte(`{"cniVersion":"0.4.0","name":"x","type":"ptp"}`), false)
	f.Fuzz(func(_ *testing.T, config []byte, list bool) {
		if json.Valid(config) {
			_, _ = (&setup{Config: config, List: list}).load()
		}
	})
}
