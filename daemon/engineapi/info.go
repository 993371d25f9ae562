package engineapi

import (
	"bufio"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/pkg/seccomp"
	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/sys/userns"
	"github.com/slipwaybuild/slipway/daemon/imageservice"
	"golang.org/x/sys/unix"
)

// indexServer is how docker names Docker Hub: clients keep its credentials under this name.
const indexServer = "https://index.docker.io/v1/"

// info is what docker info shows. The fields beside the embedded ones are those of API 1.41 that newer versions dropped: without
// them old clients warn of what is not missing.
type info struct {
	system.Info
	KernelMemory       bool
	KernelMemoryTCP    bool
	BridgeNfIptables   bool
	BridgeNfIP6tables  bool `json:"BridgeNfIp6tables"`
	ClusterStore       string
	ClusterAdvertise   string
	ExecutionDriver    string
	SystemStatus       [][2]string
	Warnings           []string
	LiveRestoreEnabled bool
}

func (a *api) info(w http.ResponseWriter, r *http.Request) error {
	worker := a.Engine.Worker()
	name, err := os.Hostname()
	if err != nil {
		name = "unknown"
	}
	images, err := a.Images.List(r.Context(), imageservice.ListOptions{})
	if err != nil {
		return err
	}
	in := info{Info: system.Info{
		Images: len(images),
		ID:     worker.ID, Name: name, ServerVersion: a.Version,
		Driver:       "slipway",
		DriverStatus: driverStatus(a.Engine.Realisation()),
		Plugins: system.PluginsInfo{
			Volume: []string{}, Network: []string{worker.Labels["org.mobyproject.buildkit.worker.network"]}, Log: []string{},
		},
		Debug: a.Settings().Debug, NFd: openFiles(), NGoroutines: runtime.NumGoroutine(),
		NEventsListener: a.Engine.Events().Listeners(),
		SystemTime:      time.Now().Format(time.RFC3339Nano),
		LoggingDriver:   "none",
		KernelVersion:   kernel(), OperatingSystem: operatingSystem(), OSType: runtime.GOOS, Architecture: machine(),
		IndexServerAddress: indexServer, RegistryConfig: a.registryConfig(),
		NCPU: runtime.NumCPU(), MemTotal: memTotal(), DockerRootDir: a.Engine.Root(),
		HTTPProxy: proxy("HTTP_PROXY"), HTTPSProxy: proxy("HTTPS_PROXY"), NoProxy: proxy("NO_PROXY"),
		Labels: []string{}, Runtimes: map[string]system.RuntimeWithStatus{}, Swarm: swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive},
		SecurityOptions: securityOptions(), CDISpecDirs: []string{},
	}, Warnings: []string{}}
	in.setLimits(a.Engine.Limits())
	in.setNetworking(worker.Labels["org.mobyproject.buildkit.worker.network"] == "cni")
	return answer(w, in)
}

// driverStatus tells how layers are kept, and, in the words that clients look for, that images are loaded from OCI layouts.
func driverStatus(realisation string) [][2]string {
	return [][2]string{{"layers", realisation}, {"driver-type", "io.containerd.snapshotter.v1"}}
}

// registryConfig tells clients of mirrors and of registries that are not trusted by certificate.
func (a *api) registryConfig() *registry.ServiceConfig {
	hub := &registry.IndexInfo{Name: "docker.io", Mirrors: []string{}, Secure: true, Official: true}
	c := &registry.ServiceConfig{
		InsecureRegistryCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		IndexConfigs:          map[string]*registry.IndexInfo{"docker.io": hub},
		Mirrors:               []string{},
	}
	for _, h := range a.Engine.Registries() {
		mirrors := append([]string{}, h.Mirrors...)
		if h.Host == hub.Name {
			hub.Mirrors, c.Mirrors, hub.Secure = mirrors, mirrors, !h.Insecure
			continue
		}
		c.IndexConfigs[h.Host] = &registry.IndexInfo{Name: h.Host, Mirrors: mirrors, Secure: !h.Insecure}
	}
	return c
}

// machine is the kernel's name of the architecture, "x86_64", as docker shows it.
func machine() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return platforms.DefaultSpec().Architecture
	}
	return strings.TrimRight(string(u.Machine[:]), "\x00")
}

func memTotal() int64 {
	var s unix.Sysinfo_t
	if err := unix.Sysinfo(&s); err != nil {
		return 0
	}
	return int64(uint64(s.Totalram) * uint64(s.Unit))
}

func cgroupVersion() string {
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &st); err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		return "2"
	}
	return "1"
}

// securityOptions names what confines steps.
func securityOptions() []string {
	options := []string{}
	if seccomp.IsEnabled() {
		options = append(options, "name=seccomp,profile=builtin")
	}
	if userns.RunningInUserNS() {
		options = append(options, "name=rootless")
	}
	return options
}

// operatingSystem is the distribution's own name.
func operatingSystem() string {
	f, err := os.Open("/etc/os-release")
	if err != nil {
		return runtime.GOOS
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), "PRETTY_NAME="); ok {
			if name, err := strconv.Unquote(v); err == nil {
				return name
			}
			return v
		}
	}
	return runtime.GOOS
}

func openFiles() int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(list)
}

// proxy is a variable of the daemon's environment in upper or lower case, without credentials.
func proxy(name string) string {
	v := os.Getenv(name)
	if v == "" {
		v = os.Getenv(strings.ToLower(name))
	}
	if before, host, ok := strings.Cut(v, "@"); ok {
		scheme, _, found := strings.Cut(before, "://")
		if !found {
			return host
		}
		return scheme + "://xxxxx:xxxxx@" + host
	}
	return v
}
