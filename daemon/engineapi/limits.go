package engineapi

import (
	"os"
	"strconv"
	"strings"

	"github.com/slipwaybuild/slipway/solver/executor"
)

// setLimits tells what steps can be limited by, and warns in dockerd's words of what this host cannot do.
func (in *info) setLimits(l executor.Limits) {
	in.CgroupVersion = strconv.Itoa(l.CgroupVersion)
	in.CgroupDriver = "cgroupfs"
	if l.CgroupVersion == 0 {
		in.CgroupDriver, in.CgroupVersion = "none", cgroupVersion()
		in.Warnings = append(in.Warnings, "WARNING: steps run without control groups: their resources cannot be limited")
		return
	}
	in.MemoryLimit, in.SwapLimit, in.OomKillDisable = l.Memory, l.Swap, l.OOMKillDisable
	in.KernelMemory, in.KernelMemoryTCP = l.KernelMemory, l.KernelMemoryTCP
	in.CPUShares, in.CPUCfsPeriod, in.CPUCfsQuota, in.CPUSet = l.CPUShares, l.CPUQuota, l.CPUQuota, l.Cpuset
	in.PidsLimit = l.Pids
	for _, w := range []struct {
		has  bool
		what string
	}{
		{l.Memory, "memory limit"},
		{l.Swap, "swap limit"},
		{l.OOMKillDisable || l.CgroupVersion == 2, "oom kill disable"},
		{l.CPUQuota, "cpu cfs quota"},
		{l.CPUQuota, "cpu cfs period"},
		{l.CPUShares, "cpu shares"},
		{l.Cpuset, "cpuset"},
	} {
		if !w.has {
			in.Warnings = append(in.Warnings, "WARNING: No "+w.what+" support")
		}
	}
}

// setNetworking tells whether the host lets packets of bridges through. Where steps have no network of their own none need to be,
// and clients would warn of what nobody misses.
func (in *info) setNetworking(own bool) {
	in.IPv4Forwarding = !own || sysctl("net/ipv4/ip_forward")
	in.BridgeNfIptables = !own || sysctl("net/bridge/bridge-nf-call-iptables")
	in.BridgeNfIP6tables = !own || sysctl("net/bridge/bridge-nf-call-ip6tables")
	if !in.IPv4Forwarding {
		in.Warnings = append(in.Warnings, "WARNING: IPv4 forwarding is disabled")
	}
}

func sysctl(name string) bool {
	b, err := os.ReadFile("/proc/sys/" + name)
	return err == nil && strings.TrimSpace(string(b)) == "1"
}
