package executor

import (
	"bufio"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupRoot is where hosts mount control groups.
const cgroupRoot = "/sys/fs/cgroup"

// cgroups is what the host can do with control groups.
type cgroups struct {
	v2 bool
	// unavailable is why steps have none; nil if they have.
	unavailable error
}

// probeCgroups looks at the host. It changes nothing.
func probeCgroups() cgroups {
	var fs unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &fs); err != nil {
		return cgroups{unavailable: &os.PathError{Op: "stat", Path: cgroupRoot, Err: err}}
	}
	if fs.Type == unix.CGROUP2_SUPER_MAGIC {
		return cgroups{v2: true, unavailable: writableDir(cgroupRoot)}
	}
	for _, controller := range []string{"memory", "cpu", "pids", "devices"} {
		if err := writableDir(filepath.Join(cgroupRoot, controller)); err != nil {
			return cgroups{unavailable: err}
		}
	}
	return cgroups{}
}

func writableDir(dir string) error {
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return &os.PathError{Op: "write", Path: dir, Err: err}
	}
	return nil
}

// oomKilled says whether the kernel killed something in a cgroup for want of memory. A cgroup that cannot be read says no.
func (c cgroups) oomKilled(group string) bool {
	name := filepath.Join(cgroupRoot, "memory", group, "memory.oom_control")
	if c.v2 {
		name = filepath.Join(cgroupRoot, group, "memory.events")
	}
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // only read
	for s := bufio.NewScanner(f); s.Scan(); {
		if n, ok := strings.CutPrefix(s.Text(), "oom_kill "); ok {
			return strings.TrimSpace(n) != "0"
		}
	}
	return false
}

// remove kills whatever is left in the cgroups of a container and takes them away, for when its runtime could not.
func (c cgroups) remove(ctx context.Context, group string) error {
	dirs := []string{filepath.Join(cgroupRoot, group)}
	if !c.v2 {
		var err error
		if dirs, err = filepath.Glob(filepath.Join(cgroupRoot, "*", group)); err != nil {
			return err
		}
	}
	var errs []error
	for _, dir := range dirs {
		if err := removeCgroup(ctx, dir); err != nil {
			errs = append(errs, &os.PathError{Op: "remove cgroup", Path: dir, Err: err})
		}
	}
	return errors.Join(errs...)
}

// removeCgroup tries until the last process has gone: the kernel tells nobody when that is on cgroup v1.
func removeCgroup(ctx context.Context, dir string) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		killAll(filepath.Join(dir, "cgroup.procs"))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

func killAll(procs string) {
	b, err := os.ReadFile(procs)
	if err != nil {
		return // gone
	}
	for _, field := range strings.Fields(string(b)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
			_ = unix.Kill(pid, unix.SIGKILL) // it may have gone
		}
	}
}
