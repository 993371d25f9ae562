package executor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// prepare composes what the step will see. What it returns wants only a network to be run.
func (s *step) prepare(ctx context.Context) (*container, error) {
	if err := s.compose(ctx); err != nil {
		return nil, err
	}
	return s.describe()
}

// compose makes the bundle's directory and gives every mount something to show.
func (s *step) compose(ctx context.Context) error {
	s.dir = filepath.Join(s.r.stepsDir(), s.id)
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		return fmt.Errorf("make bundle: %w", err)
	}
	s.bundle = s.dir
	return s.fill(ctx)
}

// describe lays the mounts. It may be called again if the process could not be started.
func (s *step) describe() (*container, error) {
	c := &container{
		id: s.id, rootfs: s.mounts[0].host, readOnly: s.mounts[0].ReadOnly, spec: &s.spec,
		tty: s.io.Tty, ownNet: s.ownNetwork(), cgroupV2: s.r.cgroups.v2,
		apparmor: s.r.o.ApparmorProfile, rootless: s.r.o.Rootless, shmSize: s.r.o.ShmSize,
	}
	if s.r.cgroups.unavailable == nil {
		c.cgroup = cgroupPath(s.r.o.CgroupParent, s.spec.CgroupParent, s.id)
		if err := os.WriteFile(filepath.Join(s.dir, cgroupFile), []byte(c.cgroup), 0o600); err != nil {
			return nil, fmt.Errorf("make bundle: %w", err)
		}
	}
	if err := s.lay(c); err != nil {
		return nil, err
	}
	s.emulated(c)
	c.env = s.environment(s.spec.Env, s.values.env, c.user, s.io.Tty)
	s.laid = c
	return c, nil
}

// fill gives every mount something to show.
func (s *step) fill(ctx context.Context) error {
	needVault := s.open || len(s.values.env) > 0 || slices.ContainsFunc(s.mounts, func(m *mount) bool {
		return !m.absent && (m.Type == MountSecret || m.Type == MountSSH)
	})
	if needVault {
		var err error
		if s.vault, err = openVault(filepath.Join(s.dir, "vault")); err != nil {
			return err
		}
	}
	if s.open || len(s.values.env) > 0 { // they will be in the bundle
		s.bundle = s.vault.name()
		if err := os.Mkdir(s.bundle, 0o700); err != nil {
			return err
		}
	}
	for _, m := range s.mounts {
		if m.absent {
			continue
		}
		if err := s.fillMount(ctx, m); err != nil {
			return err
		}
	}
	s.values.files = nil
	return nil
}

func (s *step) fillMount(ctx context.Context, m *mount) (err error) {
	switch m.Type {
	case MountBind:
		nested := slices.ContainsFunc(s.mounts, func(o *mount) bool { return inside(o.Dest, m.Dest) })
		return m.compose(ctx, s.r.o.Store, nested || m.Dest == "/")
	case MountSecret:
		m.host, err = s.vault.put(s.values.files[m], m.Mode, m.UID, m.GID)
		return err
	case MountSSH:
		m.host = s.vault.name()
		a, err := serveAgent(ctx, m.host, m, s.svc, s.r.log)
		if err != nil {
			return err
		}
		s.agents = append(s.agents, a)
	}
	return nil
}

// lay decides where in the container each mount goes, making what has to be there first, and finds out who the user is.
func (s *step) lay(c *container) error {
	root := s.mounts[0]
	if dir, err := root.isDir(); err != nil || !dir {
		return &InvalidSpecError{Field: "root", Err: errors.Join(errors.New("not a directory"), err)}
	}
	v := &view{mounts: []viewMount{{dest: "/", host: root.host, stubs: root.stubs}}}
	s.view = v
	if err := s.layRuntime(v); err != nil {
		return err
	}
	if err := s.layFiles(v, c); err != nil {
		return err
	}
	for _, m := range s.mounts[1:] {
		if m.absent {
			continue
		}
		if err := s.layMount(v, m); err != nil {
			return err
		}
		c.mounts = append(c.mounts, m.oci())
	}
	if err := s.layDevices(v, c); err != nil {
		return err
	}
	var err error
	if c.user, err = lookupUser(v, s.spec.User); err != nil {
		return err
	}
	if err := s.makeCwd(v, c.user); err != nil {
		return err
	}
	for _, m := range s.mounts {
		if err := m.settle(); err != nil {
			return fmt.Errorf("mount %s: %w", m.Dest, err)
		}
	}
	return nil
}

// layRuntime makes room for what the runtime mounts itself. It refuses to do so through a symlink. What it made stays in the layer:
// runtimes make these directories themselves, and layers are what BuildKit's are. Where mount points stay these go, as dockerd has
// them below the layer.
func (s *step) layRuntime(v *view) error {
	for _, dest := range []string{"/proc", "/dev", "/sys"} {
		at, err := stubAt(v, dest, newFile{mode: unix.S_IFDIR | 0o755, keep: !s.spec.KeepMountPoints, remove: s.spec.KeepMountPoints}, true)
		if err != nil {
			return err
		}
		if at != dest {
			return &InvalidSpecError{Field: "root", Err: fmt.Errorf("%s is a symlink to %s", dest, at)}
		}
		v.mounts = append(v.mounts, viewMount{dest: dest})
	}
	return nil
}

// layFiles generates hosts and resolv.conf, unless the step mounts its own.
func (s *step) layFiles(v *view, c *container) error {
	hosts, err := hostsFile(s.spec.Hostname, s.spec.ExtraHosts)
	if err != nil {
		return err
	}
	resolv, err := resolvConfFile(os.ReadFile, s.r.o.DNS, !c.ownNet)
	if err != nil {
		return fmt.Errorf("make resolv.conf: %w", err)
	}
	for _, f := range []struct {
		dest    string
		content []byte
	}{{"/etc/resolv.conf", resolv}, {"/etc/hosts", hosts}} {
		if slices.ContainsFunc(s.mounts, func(m *mount) bool { return m.Dest == f.dest }) {
			continue
		}
		host := filepath.Join(s.dir, path.Base(f.dest))
		if err := os.WriteFile(host, f.content, 0o644); err != nil {
			return fmt.Errorf("make %s: %w", f.dest, err)
		}
		if err := os.Chmod(host, 0o644); err != nil { // whatever the umask
			return fmt.Errorf("make %s: %w", f.dest, err)
		}
		dest, err := stubAt(v, f.dest, newFile{mode: unix.S_IFREG | 0o644, remove: true}, true)
		if err != nil {
			return err
		}
		v.mounts = append(v.mounts, viewMount{dest: dest, host: host})
		c.mounts = append(c.mounts, specs.Mount{
			Destination: dest, Type: "bind", Source: host, Options: []string{"rbind", "rprivate", "ro", "nosuid", "nodev", "noexec"},
		})
	}
	return nil
}

func (s *step) layMount(v *view, m *mount) error {
	dir, err := m.isDir()
	if err != nil {
		return err
	}
	f := newFile{mode: unix.S_IFREG | 0o644, keep: s.spec.KeepMountPoints, remove: !s.spec.KeepMountPoints}
	if dir {
		f.mode = unix.S_IFDIR | 0o755
	}
	if m.Type == MountTmpfs {
		f.mode = unix.S_IFDIR | 0o1777 // runtimes give the tmpfs the mode of what it covers
	}
	if m.dest, err = stubAt(v, m.Dest, f, s.spec.RemoveMountStubs); err != nil {
		return err
	}
	if m.dest == "/" {
		return &InvalidSpecError{Field: "mount " + m.Dest, Err: errors.New("leads to the root")}
	}
	v.mounts = append(v.mounts, viewMount{dest: m.dest, host: m.host, stubs: m.stubs})
	return nil
}

// stubAt finds dest in the view and makes what is missing: f itself, and directories above it. It returns dest without
// symlinks.
func stubAt(v *view, dest string, f newFile, removeParents bool) (string, error) {
	mk := func(at *place, name string, last bool) error {
		stubs := v.mounts[at.mount].stubs
		if stubs == nil {
			return &fs.PathError{Op: "make mount point", Path: path.Join(at.path, name), Err: unix.EROFS}
		}
		if last {
			return stubs.make(at, name, f)
		}
		return stubs.make(at, name, newFile{mode: unix.S_IFDIR | 0o755, remove: removeParents})
	}
	at, rest, err := v.walk(dest, mk)
	if at != nil {
		defer at.close()
	}
	if errors.Is(err, errRuntimeMade) {
		// The runtime makes mount points in what it made itself.
		return path.Join(append([]string{at.path}, rest...)...), nil
	}
	if err != nil {
		return "", &InvalidSpecError{Field: "mount " + dest, Err: err}
	}
	st, err := at.stat()
	if err != nil {
		return "", fmt.Errorf("mount %s: %w", dest, err)
	}
	isDir, wantDir := st.Mode&unix.S_IFMT == unix.S_IFDIR, f.mode&unix.S_IFMT == unix.S_IFDIR
	if isDir && !wantDir {
		return "", &InvalidSpecError{Field: "mount " + dest, Err: errors.New("a file cannot be mounted on a directory")}
	}
	if !isDir && wantDir {
		return "", &InvalidSpecError{Field: "mount " + dest, Err: errors.New("a directory cannot be mounted on a file")}
	}
	return at.path, nil
}

// makeCwd makes the working directory, owned by the user, if it is missing. It is the step's own and stays.
func (s *step) makeCwd(v *view, u identity) error {
	mk := func(at *place, name string, _ bool) error {
		stubs := v.mounts[at.mount].stubs
		if stubs == nil {
			return &fs.PathError{Op: "make", Path: path.Join(at.path, name), Err: unix.EROFS}
		}
		return stubs.make(at, name, newFile{mode: unix.S_IFDIR | 0o755, uid: u.uid, gid: u.gid})
	}
	at, _, err := v.walk(s.spec.Cwd, mk)
	if at != nil {
		defer at.close()
	}
	if errors.Is(err, errRuntimeMade) {
		return nil // the runtime will see
	}
	if err != nil {
		return &InvalidSpecError{Field: "working directory " + s.spec.Cwd, Err: err}
	}
	st, err := at.stat()
	if err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return &InvalidSpecError{Field: "working directory " + s.spec.Cwd, Err: unix.ENOTDIR}
	}
	return nil
}

// settle tells the stubs in what may be sealed that there will be no more.
func (m *mount) settle() error {
	if !m.keep {
		return nil
	}
	return m.stubs.settle(m.rootfs.Path())
}
