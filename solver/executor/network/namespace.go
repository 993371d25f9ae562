package network

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	cni "github.com/containerd/go-cni"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// pluginTime bounds one round of plugins. They run to their end even if the step is cancelled: what they leave half-way is hard to
// find again.
const pluginTime = time.Minute

// Namespace is one network, with a loopback interface and what the plugins added.
type Namespace struct {
	n    *Network
	id   string
	path string
	// given are the addresses the plugins gave.
	given addresses
}

// Path is the file that is the namespace, as OCI runtimes take it.
func (ns *Namespace) Path() string { return ns.path }

// Release gives the namespace back. It is removed unless same says that it is as it was when it was taken.
func (ns *Namespace) Release(same bool) error {
	ns.n.mu.Lock()
	ns.n.taken--
	ns.n.mu.Unlock()
	if same && ns.n.keep(ns) {
		return nil
	}
	if !same {
		if err := ns.restore(); err != nil {
			ns.n.log.Warn("undo what a step did to its network", "id", ns.id, "error", err)
		}
	}
	return ns.destroy()
}

// make makes a namespace and has the plugins connect it.
func (n *Network) make(ctx context.Context) (*Namespace, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	id := "slipway-" + strings.ToLower(rand.Text())
	ns := &Namespace{n: n, id: id, path: filepath.Join(n.nsDir(), id)}
	if err := newNamespace(ns.path); err != nil {
		return nil, fmt.Errorf("make network namespace: %w", errors.Join(err, removeNamespace(ns.path)))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pluginTime)
	defer cancel()
	if _, err := n.cni.Setup(ctx, id, ns.path); err != nil {
		return nil, errors.Join(fmt.Errorf("connect network namespace: %w", err), ns.destroy())
	}
	if err := ns.remember(); err != nil {
		return nil, errors.Join(err, ns.destroy())
	}
	return ns, nil
}

func (ns *Namespace) destroy() error { return destroy(ns.n.cni, ns.id, ns.path) }

// destroy undoes what the plugins did and removes the namespace, whatever of it is there.
func destroy(c cni.CNI, id, path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), pluginTime)
	defer cancel()
	if err := c.Remove(ctx, id, path); err != nil {
		return errors.Join(fmt.Errorf("disconnect network namespace %s: %w", id, err), removeNamespace(path))
	}
	return removeNamespace(path)
}

// newNamespace makes a network namespace with its loopback up, and mounts it on path.
func newNamespace(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		// The thread is never unlocked: it ends with the goroutine, for it is in another namespace than all others.
		runtime.LockOSThread()
		done <- unshareOnto(path)
	}()
	return <-done
}

func unshareOnto(path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	source := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
	if err := unix.Mount(source, path, "", unix.MS_BIND, ""); err != nil {
		return &os.PathError{Op: "mount", Path: path, Err: err}
	}
	return nil
}

// removeNamespace ends what newNamespace began. The kernel's namespace goes with its last process.
func removeNamespace(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "unmount", Path: path, Err: err}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// recover removes the namespaces of a daemon that was killed. They are undone with what they were made with, whatever is configured
// now.
func (n *Network) recover(ctx context.Context) error {
	entries, err := os.ReadDir(n.nsDir())
	if err != nil || len(entries) == 0 {
		return err
	}
	made, loadErr := loadSetup(n.setupFile())
	var old cni.CNI
	if loadErr == nil {
		old, loadErr = made.load()
	}
	errs := []error{loadErr}
	for _, e := range entries {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n.log.Info("remove network left behind", "id", e.Name())
		path := filepath.Join(n.nsDir(), e.Name())
		if !isNamespace(path) {
			// The host was started anew. Plugins take a name that does not exist for a namespace that is gone.
			errs = append(errs, removeNamespace(path))
		}
		if old == nil {
			errs = append(errs, removeNamespace(path))
			continue
		}
		errs = append(errs, destroy(old, e.Name(), path))
	}
	if made != nil && made.Bridge != "" {
		errs = append(errs, removeBridge(made.Bridge))
	}
	return errors.Join(errs...)
}

func isNamespace(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && fs.Type == unix.NSFS_MAGIC
}
