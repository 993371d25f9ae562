package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// NoRuntimeError says that no OCI runtime works on this host. A daemon starts all the same: only steps need one.
type NoRuntimeError struct {
	// Tried are the reasons, one for each runtime looked at.
	Tried []string
}

func (e *NoRuntimeError) Error() string {
	return "no OCI runtime works on this host (" + strings.Join(e.Tried, "; ") + "): install one, for example with `apt-get install runc`"
}

// runtime is an OCI runtime of this host. State is where it keeps its containers.
type runtime struct {
	path  string
	state string
	// noCgroups says that it must do without cgroups.
	noCgroups bool
	// rootless says that the daemon is root of a user namespace only.
	rootless bool
}

// finder looks for a runtime until it has found one: someone may install it while the daemon runs.
type finder struct {
	binary string // "" for the first that works
	state  string // directory for containers
	temp   string // directory for probes

	noCgroups, rootless bool

	mu    sync.Mutex // guards found, and lets only one look
	found *runtime
}

func (f *finder) find(ctx context.Context) (*runtime, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.found != nil {
		return f.found, nil
	}
	names := []string{"runc", "crun"}
	if f.binary != "" {
		names = []string{f.binary}
	}
	var tried []string
	for _, name := range names {
		p, err := lookPath(name)
		if err != nil {
			tried = append(tried, name+" is not installed")
			continue
		}
		rt := &runtime{path: p, state: f.state, noCgroups: f.noCgroups, rootless: f.rootless}
		if err := rt.probe(ctx, f.temp); err != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			tried = append(tried, fmt.Sprintf("%s does not work here: %v", p, err))
			continue
		}
		f.found = rt
		return rt, nil
	}
	return nil, &NoRuntimeError{Tried: tried}
}

// lookPath also looks where daemons find programs that users' PATHs leave out.
func lookPath(name string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	if strings.ContainsRune(name, filepath.Separator) {
		return "", exec.ErrNotFound
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin"} {
		p := filepath.Join(dir, name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", exec.ErrNotFound
}

// probeProgram does not exist: a runtime that gets so far as to miss it has made a container.
const probeProgram = "/slipway-probe"

// probe makes a container with an empty root to see whether the runtime can.
func (rt *runtime) probe(ctx context.Context, temp string) error {
	bundle, err := os.MkdirTemp(temp, "probe-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(bundle) }() // found again at the next start
	if err := os.Mkdir(filepath.Join(bundle, "rootfs"), 0o755); err != nil {
		return err
	}
	c := container{
		id:       filepath.Base(bundle),
		rootfs:   "rootfs",
		spec:     &Spec{Args: []string{probeProgram}, Cwd: "/", Hostname: DefaultHostname},
		rootless: rt.rootless,
	}
	if !rt.noCgroups {
		c.cgroup = cgroupPath("", "", c.id)
	}
	spec, err := c.ociSpec(ctx)
	if err != nil {
		return err
	}
	if err := writeConfig(bundle, spec); err != nil {
		return err
	}
	defer func() { _ = rt.delete(context.WithoutCancel(ctx), c.id) }() // usually gone already
	out, err := rt.command(ctx, "run", "--bundle", bundle, c.id).CombinedOutput()
	if err == nil || strings.Contains(string(out), probeProgram) {
		return nil
	}
	if msg := lastLine(out); msg != "" {
		return errors.New(msg)
	}
	return err
}

// command is a call of the runtime. It gets no environment of ours: NOTIFY_SOCKET alone would change what it does.
func (rt *runtime) command(ctx context.Context, args ...string) *exec.Cmd {
	global := []string{"--root", rt.state}
	if rt.noCgroups && strings.Contains(filepath.Base(rt.path), "runc") {
		global = append(global, "--rootless=true")
	}
	cmd := exec.CommandContext(ctx, rt.path, append(global, args...)...)
	cmd.Env = []string{"PATH=" + defaultPath}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR="+dir)
	}
	return cmd
}

// delete kills a container and removes what is left of it. One that does not exist is no error.
func (rt *runtime) delete(ctx context.Context, id string) error {
	if _, err := os.Stat(filepath.Join(rt.state, id)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	out, err := rt.command(ctx, "delete", "--force", id).CombinedOutput()
	if err != nil {
		return fmt.Errorf("delete container %s: %w: %s", id, err, lastLine(out))
	}
	return nil
}

func writeConfig(bundle string, spec any) error {
	if err := writeJSON(filepath.Join(bundle, "config.json"), spec); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	return nil
}

// writeJSON writes what the runtime reads. Only root may read it besides: an environment may hold secrets.
func writeJSON(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(name, b, 0o600)
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
