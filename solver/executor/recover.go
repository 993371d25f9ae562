package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Recover removes what a killed daemon left behind: containers with their processes, mounts, bundles and secrets. It is called
// before the first Run; nothing else may run on the same root.
func (r *Runc) Recover(ctx context.Context) error {
	ids, err := r.leftContainers()
	if err != nil {
		return fmt.Errorf("recover executor: %w", err)
	}
	var errs []error
	for _, id := range ids {
		r.log.InfoContext(ctx, "remove container left behind", "id", id)
		errs = append(errs, r.removeContainer(ctx, id))
	}
	errs = append(errs, unmountBelow(r.o.Root))
	for _, dir := range []string{r.stepsDir(), r.stateDir(), r.tempDir()} {
		errs = append(errs, emptyDir(dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("recover executor: %w", err)
	}
	return nil
}

// leftContainers are the ids of all steps that have a bundle or a state.
func (r *Runc) leftContainers() ([]string, error) {
	var ids []string
	for _, dir := range []string{r.stepsDir(), r.stateDir()} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			ids = append(ids, e.Name())
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// removeContainer kills a container. Its cgroup is found from the bundle, or where it would be by default: processes in it are
// killed even if no runtime is installed any more that knows the container.
func (r *Runc) removeContainer(ctx context.Context, id string) error {
	var deleted error
	if _, err := os.Stat(filepath.Join(r.stateDir(), id)); err == nil {
		rt, err := r.finder.find(ctx)
		if err == nil {
			err = rt.delete(ctx, id)
		}
		deleted = err
	}
	if r.cgroups.unavailable != nil {
		return deleted
	}
	ctx, cancel := context.WithTimeout(ctx, killGrace)
	defer cancel()
	group := r.cgroupOf(id)
	if err := r.cgroups.remove(ctx, group); err != nil {
		return errors.Join(deleted, err)
	}
	return nil // a container without processes and cgroup is gone, whatever its runtime says
}

// cgroupOf finds the cgroup of a step whose daemon is gone.
func (r *Runc) cgroupOf(id string) string {
	if b, err := os.ReadFile(filepath.Join(r.stepsDir(), id, cgroupFile)); err == nil {
		if group := string(b); filepath.IsAbs(group) && filepath.Base(group) == id {
			return filepath.Clean(group)
		}
	}
	return cgroupPath(r.o.CgroupParent, "", id)
}

// cgroupFile in a step's directory names its cgroup, for who comes after a crash.
const cgroupFile = "cgroup"

// unmountBelow ends every mount below dir, inner ones first.
func unmountBelow(dir string) error {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return !strings.HasPrefix(m.Mountpoint, dir+"/"), false
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range slices.Backward(mounts) {
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, &os.PathError{Op: "unmount", Path: m.Mountpoint, Err: err})
		}
	}
	return errors.Join(errs...)
}

func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}
