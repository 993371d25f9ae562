package executor

import (
	"os"
	"path/filepath"
	"testing"
)

func TestProbeLimits(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files map[string]string
		v2    bool
		want  Limits
	}{
		"v1 with all": {
			map[string]string{
				"memory/memory.limit_in_bytes": "", "memory/memory.memsw.limit_in_bytes": "", "memory/memory.oom_control": "", "memory/memory.kmem.limit_in_bytes": "",
				"memory/memory.kmem.tcp.limit_in_bytes": "", "cpu/cpu.shares": "", "cpu/cpu.cfs_quota_us": "", "cpuset/cpuset.cpus": "", "pids/pids.max": "",
			}, false,
			Limits{1, true, true, true, true, true, true, true, true, true},
		},
		"v1 of a kernel without swap accounting, kernel memory and bandwidth": {
			map[string]string{"memory/memory.limit_in_bytes": "", "memory/memory.oom_control": "", "cpu/cpu.shares": ""}, false,
			Limits{CgroupVersion: 1, Memory: true, OOMKillDisable: true, CPUShares: true},
		},
		"v2": {
			map[string]string{"cgroup.controllers": "cpuset cpu io memory pids\n", "system.slice/memory.swap.max": "max\n"}, true,
			Limits{CgroupVersion: 2, Memory: true, Swap: true, CPUShares: true, CPUQuota: true, Cpuset: true, Pids: true},
		},
		"v2 with some controllers": {
			map[string]string{"cgroup.controllers": "memory pids\n", "system.slice/cpu.weight": ""}, true,
			Limits{CgroupVersion: 2, Memory: true, Pids: true},
		},
		"v2 without any": {map[string]string{}, true, Limits{CgroupVersion: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			for path, text := range c.files {
				path = filepath.Join(root, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got := probeLimits(root, c.v2); got != c.want {
				t.Errorf("%+v\nwant %+v", got, c.want)
			}
		})
	}
}
