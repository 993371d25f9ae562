package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// makeBundle makes a bundle of busybox that does nothing, on the network of the host and behind the filter of system calls, as steps are.
func makeBundle(runtime, dir string) error {
	rootfs := filepath.Join(dir, "rootfs")
	if err := os.MkdirAll(rootfs, 0o755); err != nil {
		return err
	}
	archive, err := os.Create(filepath.Join(dir, "rootfs.tar"))
	if err != nil {
		return err
	}
	defer func() { _ = archive.Close() }() // tar below says whether it is whole
	if err := writeBusybox(archive); err != nil {
		return err
	}
	if out, err := exec.Command("tar", "-C", rootfs, "-xf", archive.Name()).CombinedOutput(); err != nil {
		return fmt.Errorf("unpack busybox: %w\n%s", err, out)
	}
	spec := exec.Command(runtime, "spec")
	spec.Dir = dir
	if out, err := spec.CombinedOutput(); err != nil {
		return fmt.Errorf("%s spec: %w\n%s", runtime, err, out)
	}
	config := filepath.Join(dir, "config.json")
	content, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	var s specs.Spec
	if err := json.Unmarshal(content, &s); err != nil {
		return err
	}
	s.Process.Terminal, s.Process.Args = false, []string{"true"}
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
	// sysfs may be mounted in a network namespace of one's own only.
	s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Type == "sysfs" })
	if s.Linux.Seccomp, err = seccomp.GetDefaultProfile(&s); err != nil {
		return err
	}
	if content, err = json.Marshal(s); err != nil {
		return err
	}
	return os.WriteFile(config, content, 0o600)
}
