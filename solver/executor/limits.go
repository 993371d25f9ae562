package executor

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Limits is what steps can be limited by on a host: whether the kernel has it, and the daemon may use it.
type Limits struct {
	// CgroupVersion is 1 or 2; 0 if steps have no control groups, and so none of the others.
	CgroupVersion int

	Memory, Swap, OOMKillDisable  bool
	KernelMemory, KernelMemoryTCP bool
	CPUShares, CPUQuota, Cpuset   bool
	Pids                          bool
}

// Limits looks at the host anew.
func (r *Runc) Limits() Limits {
	if r.cgroups.unavailable != nil {
		return Limits{}
	}
	return probeLimits(cgroupRoot, r.cgroups.v2)
}

// probeLimits looks at what is mounted at root.
func probeLimits(root string, v2 bool) Limits {
	if v2 {
		return probeLimitsV2(root)
	}
	has := func(path ...string) bool {
		_, err := os.Stat(filepath.Join(append([]string{root}, path...)...))
		return err == nil
	}
	return Limits{
		CgroupVersion:   1,
		Memory:          has("memory", "memory.limit_in_bytes"),
		Swap:            has("memory", "memory.memsw.limit_in_bytes"),
		OOMKillDisable:  has("memory", "memory.oom_control"),
		KernelMemory:    has("memory", "memory.kmem.limit_in_bytes"),
		KernelMemoryTCP: has("memory", "memory.kmem.tcp.limit_in_bytes"),
		CPUShares:       has("cpu", "cpu.shares"),
		CPUQuota:        has("cpu", "cpu.cfs_quota_us"),
		Cpuset:          has("cpuset"),
		Pids:            has("pids"),
	}
}

// probeLimitsV2 goes by the controllers that the root group has. Its own limits are not there, so that swap is looked for below it.
func probeLimitsV2(root string) Limits {
	b, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return Limits{CgroupVersion: 2}
	}
	controllers := strings.Fields(string(b))
	has := func(name string) bool { return slices.Contains(controllers, name) }
	swap, _ := filepath.Glob(filepath.Join(root, "*", "memory.swap.max")) // the pattern is not bad, if the root is not
	return Limits{
		CgroupVersion: 2,
		Memory:        has("memory"),
		Swap:          has("memory") && len(swap) > 0,
		CPUShares:     has("cpu"),
		CPUQuota:      has("cpu"),
		Cpuset:        has("cpuset"),
		Pids:          has("pids"),
	}
}
