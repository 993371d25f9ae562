package executor

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestStartFailure(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, logged, want string
		code               int // 0: the runtime's fault
	}{
		{"runc: not found", "runc run failed: unable to start container process: exec: \"foo\": executable file not found in $PATH", `exec: "foo": executable file not found in $PATH`, 127},
		{"runc 1.2: not found", "runc run failed: unable to start container process: error during container init: exec: \"foo\": executable file not found in $PATH: unknown", `exec: "foo": executable file not found in $PATH`, 127},
		{"runc: no permission", "runc run failed: unable to start container process: exec: \"/x\": permission denied", `exec: "/x": permission denied`, 126},
		{"runc: directory", "runc run failed: unable to start container process: chdir to cwd (\"/x\") set in config.json failed: permission denied", `chdir to cwd ("/x") set in config.json failed: permission denied`, 126},
		{"other", "runc run failed: unable to apply cgroup configuration: no", "runc: runc run failed: unable to apply cgroup configuration: no", 0},
		{"nothing", "", "runc: exit status 1", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			log := filepath.Join(t.TempDir(), "log")
			text := `{"level":"warning","msg":"exec: \"w\": warned"}` + "\nnoise\n"
			if c.logged != "" {
				text += `{"level":"error","msg":` + strconv.Quote(c.logged) + "}\n"
			}
			if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			err := startFailure("runc", log, []string{"foo"}, errors.New("exit status 1"))
			if err.Error() != c.want {
				t.Errorf("error %q, want %q", err, c.want)
			}
			var start *StartError
			if errors.As(err, &start) != (c.code != 0) || start != nil && start.Code != c.code {
				t.Errorf("error %#v, want code %d", err, c.code)
			}
		})
	}
}

func TestCgroupPath(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ base, parent, want string }{
		{"", "", "/slipway/id"},
		{"", "a/b", "/slipway/a/b/id"},
		{"", "/a", "/slipway/a/id"},
		{"", "../../etc", "/slipway/etc/id"},
		{"/custom", "", "/custom/id"},
		{"../x", "", "/x/id"},
	} {
		if got := cgroupPath(c.base, c.parent, "id"); got != c.want {
			t.Errorf("%q in %q: got %s, want %s", c.parent, c.base, got, c.want)
		}
	}
}

func testContainer(s Spec) *container {
	if len(s.Args) == 0 {
		s.Args = []string{"x"}
	}
	return &container{id: "id", rootfs: "/r", spec: &s, cgroup: "/slipway/id", cgroupV2: true}
}

func TestOCISpec(t *testing.T) {
	t.Parallel()
	has := func(s *specs.Spec, ns specs.LinuxNamespaceType) bool {
		return slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == ns })
	}
	t.Run("confined", func(t *testing.T) {
		t.Parallel()
		s, err := testContainer(Spec{Resources: Resources{Memory: 1, MemorySwap: -1, CPUQuota: 2, CpusetCpus: "0"}}).ociSpec(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if s.Linux.Seccomp == nil || len(s.Linux.MaskedPaths) == 0 || len(s.Linux.ReadonlyPaths) == 0 || s.Process.NoNewPrivileges {
			t.Errorf("not confined as Docker does: %+v", s.Linux)
		}
		if len(s.Process.Capabilities.Effective) != 14 || len(s.Process.Capabilities.Inheritable) != 0 {
			t.Errorf("capabilities %+v", s.Process.Capabilities)
		}
		if !has(s, specs.CgroupNamespace) || has(s, specs.NetworkNamespace) || !has(s, specs.PIDNamespace) {
			t.Errorf("namespaces %+v", s.Linux.Namespaces)
		}
		if r := s.Linux.Resources; *r.Memory.Limit != 1 || *r.Memory.Swap != -1 || *r.CPU.Quota != 2 || r.CPU.Cpus != "0" || r.CPU.Shares != nil {
			t.Errorf("resources %+v", r)
		}
		if s.Process.Rlimits != nil {
			t.Errorf("limits %+v, want the daemon's", s.Process.Rlimits)
		}
	})
	t.Run("insecure", func(t *testing.T) {
		t.Parallel()
		s, err := testContainer(Spec{Security: SecurityInsecure}).ociSpec(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if s.Linux.Seccomp != nil || s.Linux.MaskedPaths != nil || s.Linux.ReadonlyPaths != nil {
			t.Error("still confined")
		}
		for _, m := range s.Mounts {
			if m.Destination == "/sys" && slices.Contains(m.Options, "ro") {
				t.Error("/sys is read-only")
			}
		}
	})
	t.Run("own network", func(t *testing.T) {
		t.Parallel()
		c := testContainer(Spec{})
		c.ownNet = true
		s, err := c.ociSpec(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !has(s, specs.NetworkNamespace) {
			t.Error("shares the host's network")
		}
	})
	t.Run("rootless", func(t *testing.T) {
		t.Parallel()
		c := testContainer(Spec{})
		c.rootless = true
		s, err := c.ociSpec(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if s.Linux.CgroupsPath != "" || s.Linux.Resources != nil {
			t.Error("asks for control groups")
		}
	})
	t.Run("a mount of the step's in place of the runtime's", func(t *testing.T) {
		t.Parallel()
		c := testContainer(Spec{})
		c.mounts = []specs.Mount{{Destination: "/dev/shm", Source: "own"}}
		s, err := c.ociSpec(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var sources []string
		for _, m := range s.Mounts {
			if m.Destination == "/dev/shm" {
				sources = append(sources, m.Source)
			}
		}
		if !slices.Equal(sources, []string{"own"}) {
			t.Errorf("mounted on /dev/shm: %v", sources)
		}
	})
}

func TestSplitOptions(t *testing.T) {
	t.Parallel()
	got := splitOptions(`rw,upperdir=/a\,b\\c,index=off`)
	if !slices.Equal(got, []string{"rw", `upperdir=/a,b\c`, "index=off"}) {
		t.Errorf("got %q", got)
	}
}

// FuzzLookupUser: accounts are bytes of whoever made the image.
func FuzzLookupUser(f *testing.F) {
	f.Add("root:x:0:0::/root:/bin/sh\nada:x:1:2::/home/ada:/bin/sh\n", "wheel:x:10:ada\n", "ada")
	f.Add("ada:x:-1:99999999999::::\n:::::::\n", "a:b:c:d,,,\n", "ada:a")
	f.Add("", "", "1:2")
	f.Fuzz(func(t *testing.T, passwd, group, name string) {
		root := t.TempDir()
		err := errors.Join(os.Mkdir(filepath.Join(root, "etc"), 0o755),
			os.WriteFile(filepath.Join(root, "etc/passwd"), []byte(passwd), 0o644),
			os.WriteFile(filepath.Join(root, "etc/group"), []byte(group), 0o644))
		if err != nil {
			t.Fatal(err)
		}
		id, err := lookupUser(&view{mounts: []viewMount{{dest: "/", host: root}}}, name)
		var invalid *InvalidSpecError
		if err != nil && !errors.As(err, &invalid) {
			t.Errorf("error %v, want an invalid spec", err)
		}
		if err == nil && (id.uid < 0 || id.gid < 0 || id.home == "" || strings.ContainsAny(id.home, "\n\x00")) {
			t.Errorf("identity %+v", id)
		}
	})
}

func TestMissingAgentIsNamed(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{"": `no SSH key "default" forwarded from the client`, "work": `no SSH key "work" forwarded from the client`} {
		if got := (&MissingSSHError{ID: id}).Error(); got != want {
			t.Errorf("id %q: %q, want %q", id, got, want)
		}
	}
}
