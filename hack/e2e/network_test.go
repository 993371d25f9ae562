package e2e

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	bkclient "github.com/moby/buildkit/client"
)

// bridgeConfig is a configuration with a bridge of this test alone.
func bridgeConfig(t *testing.T, name, subnet, more string) string {
	t.Helper()
	need(t, "iptables", "ip")
	found := false
	for _, dir := range []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"} {
		_, err := os.Stat(filepath.Join(dir, "bridge"))
		found = found || err == nil
	}
	if !found {
		t.Skip("needs CNI plugins: apt-get install containernetworking-plugins")
	}
	if out, err := exec.Command("ip", "link", "add", name, "type", "bridge").CombinedOutput(); err != nil {
		t.Skipf("this kernel makes no bridges: %s", out)
	}
	if out, err := exec.Command("ip", "link", "del", name).CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	t.Cleanup(func() { _ = os.RemoveAll("/var/lib/cni/networks/slipway-" + name) })
	return configFile(t, more+`
[worker.oci]
networkMode = "bridge"
bridgeName = "`+name+`"
bridgeSubnet = "`+subnet+`"
`)
}

func configFile(t *testing.T, text string) string {
	t.Helper()
	return filepath.Join(write(t, map[string]string{"slipwayd.toml": text}), "slipwayd.toml")
}

// noTraces looks for what networks of steps leave when they leak. A test calls it after its daemon has ended.
func noTraces(t *testing.T, bridge, prefix string) {
	t.Helper()
	if links, _ := exec.Command("ip", "-o", "link").Output(); strings.Contains(string(links), bridge) {
		t.Errorf("links left behind:\n%s", links)
	}
	if rules, _ := exec.Command("iptables-save").Output(); strings.Contains(string(rules), prefix) {
		t.Errorf("packet filter rules left behind:\n%s", rules)
	}
	if leases, _ := filepath.Glob("/var/lib/cni/networks/slipway-" + bridge + "/" + prefix + "*"); len(leases) > 0 {
		t.Errorf("addresses left behind: %v", leases)
	}
}

func (d *daemon) worker() *bkclient.WorkerInfo {
	d.t.Helper()
	list, err := d.client(d.t).ListWorkers(d.t.Context())
	if err != nil || len(list) != 1 {
		d.t.Fatalf("workers: %v, %v", list, err)
	}
	return list[0]
}

// hello serves a page on every address of this host.
func hello(t *testing.T) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		_, _ = w.Write([]byte("hello " + host))
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

func TestBridgeNetwork(t *testing.T) {
	config := bridgeConfig(t, "swe2e1", "10.214.1.0/24", `
insecure-entitlements = ["network.host", "security.insecure"]
[dns]
searchDomains = ["example.test"]
`)
	t.Cleanup(func() { noTraces(t, "swe2e1", "10.214.1.") })
	d := startDaemon(t, "--config", config)
	if got := d.worker().Labels["org.mobyproject.buildkit.worker.network"]; got != "cni" {
		t.Errorf("label says %q", got)
	}
	port := hello(t)
	out := filepath.Join(t.TempDir(), "out")
	dir := write(t, map[string]string{"Dockerfile": base + `RUN mkdir /out; ip -o addr show eth0 > /out/addr; ip route > /out/route
RUN wget -qO /out/gateway http://10.214.1.1:` + port + `/
RUN (wget -T 5 -qO- http://127.0.0.1:` + port + `/ || echo refused) > /out/loopback 2>/dev/null
RUN cp /etc/resolv.conf /out/
RUN --network=none ip -o link > /out/none; ip -o addr show lo >> /out/none
RUN --network=host (wget -qO /out/host http://127.0.0.1:` + port + `/)
RUN --security=insecure ip addr add 10.9.9.9/32 dev eth0 && ip -o addr show eth0 > /out/insecure
RUN ip -o addr show eth0 > /out/after
FROM scratch
COPY --from=base /out /
`})
	d.build(busyboxContext(t), "--allow", "network.host", "--allow", "security.insecure", "-o", out, dir)
	for file, want := range map[string]string{
		"addr": "inet 10.214.1.", "route": "default via 10.214.1.1", "gateway": "hello 10.214.1.", "loopback": "refused",
		"resolv.conf": "search example.test", "host": "hello 127.0.0.1", "insecure": "10.9.9.9", "none": "127.0.0.1",
	} {
		if got := read(t, out, file); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
	if got := read(t, out, "none"); strings.Contains(got, "eth0") {
		t.Errorf("a step without network has one: %s", got)
	}
	if got := read(t, out, "after"); strings.Contains(got, "10.9.9.9") {
		t.Error("a step got a network that another had changed")
	}
	if got := read(t, out, "resolv.conf"); strings.Contains(got, "nameserver 127.") || strings.Contains(got, "nameserver ::1") {
		t.Errorf("a name server that the step cannot reach: %s", got)
	}
}

func TestNetworksOfAKilledDaemonAreRemoved(t *testing.T) {
	config := bridgeConfig(t, "swe2e2", "10.214.2.0/24", "")
	t.Cleanup(func() { noTraces(t, "swe2e2", "10.214.2.") })
	d := startDaemon(t, "--config", config)
	dir := write(t, map[string]string{"Dockerfile": base + "RUN sleep 31415\n"})
	ended := make(chan result, 1)
	bb := busyboxContext(t)
	go func() {
		ended <- d.runContext(t.Context(), nil, "build", bb, "--progress", "plain", "-o", "type=cacheonly", dir)
	}()
	waitFor(t, "the step to run", func() bool { return len(processesNaming("sleep\x0031415")) > 0 })
	d.kill()
	<-ended
	if rules, _ := exec.Command("iptables-save").Output(); !strings.Contains(string(rules), "10.214.2.") {
		t.Fatal("there is nothing that could leak")
	}
	// The next daemon needs no network, and cleans up all the same.
	d.args = nil
	d.start()
	noTraces(t, "swe2e2", "10.214.2.")
	d.build(bb, "-o", "type=cacheonly", write(t, map[string]string{"Dockerfile": base + "RUN true\n"}))
}

func TestNetworkThatCannotWorkIsToldAtTheStart(t *testing.T) {
	need(t, "runc")
	out, err := exec.Command(filepath.Join(binaries, "slipwayd"), "--root", t.TempDir(), "--addr", "unix://"+filepath.Join(shortTemp(t), "s"),
		"--oci-worker-net", "bridge", "--oci-cni-binary-dir", "/nowhere").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "containernetworking-plugins") {
		t.Errorf("got %v: %s", err, out)
	}
}
