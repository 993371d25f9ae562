package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// machine is what measurements depend on. It does not say whose it is.
type machine struct {
	CPU        string `json:"cpu"`
	Cores      int    `json:"cores"`
	MemoryGB   int    `json:"memoryGB"`
	Kernel     string `json:"kernel"`
	FileSystem string `json:"fileSystem"`
	Runtime    string `json:"runtime"`
}

func thisMachine(dir, ociRuntime string) (machine, error) {
	m := machine{CPU: "unknown", Cores: runtime.NumCPU()}
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return machine{}, err
	}
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return machine{}, err
	}
	version, _, _ := strings.Cut(unix.ByteSliceToString(u.Release[:]), "-")
	m.Kernel = version
	var s unix.Sysinfo_t
	if err := unix.Sysinfo(&s); err != nil {
		return machine{}, err
	}
	m.MemoryGB = int((s.Totalram*uint64(s.Unit) + 1<<29) >> 30)
	kind, err := exec.Command("findmnt", "--noheadings", "--output", "FSTYPE", "--target", dir).Output()
	if err != nil {
		return machine{}, fmt.Errorf("kind of the file system of %s: %w", dir, err)
	}
	m.FileSystem = strings.TrimSpace(string(kind))
	said, err := exec.Command(ociRuntime, "--version").Output()
	if err != nil {
		return machine{}, fmt.Errorf("version of %s: %w", ociRuntime, err)
	}
	m.Runtime, _, _ = strings.Cut(string(said), "\n")
	return m, nil
}

func architecture() string { return runtime.GOARCH }
