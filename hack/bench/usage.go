package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// usage is what a process used up to now, or between two moments.
type usage struct {
	cpu     time.Duration // of it and of the children that it waited for
	written int64         // bytes that it caused to be written to disk
}

func (u usage) since(before usage) usage {
	return usage{cpu: u.cpu - before.cpu, written: u.written - before.written}
}

// tick is the unit of times in /proc: USER_HZ, which is 100 on all that Go runs on.
const tick = 10 * time.Millisecond

func usageOf(pid int) (usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, err
	}
	// The second field is the program's name in parentheses and may hold anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var u usage
	for _, i := range []int{11, 12, 13, 14} { // utime, stime, cutime, cstime
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return usage{}, err
		}
		u.cpu += time.Duration(n) * tick
	}
	u.written, err = procValue(pid, "io", "write_bytes")
	return u, err
}

// procValue is a number in a file of "name: number" lines below /proc.
func procValue(pid int, file, name string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			return strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("/proc/%d/%s has no %s", pid, file, name)
}

// forgetPeak has the kernel count the greatest resident size anew.
func forgetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// resident is the memory of a process in bytes, and the most it had since forgetPeak.
func resident(pid int) (now, peak int64, err error) {
	if now, err = procValue(pid, "status", "VmRSS"); err != nil {
		return 0, 0, err
	}
	peak, err = procValue(pid, "status", "VmHWM")
	return now << 10, peak << 10, err
}
