package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// line is a result with what was aimed at.
type line struct {
	result
	row
	what     string // in words
	ours     float64
	theirs   float64
	mark     float64 // what ours is to be at most; 0 is no aim
	isMemory bool
}

// holds tells whether the aim is reached.
func (l line) holds() bool { return l.mark == 0 || l.ours <= l.mark }

// lines puts results into the order of the workloads.
func (rs *results) lines() (list []line) {
	for _, w := range workloads() {
		for _, row := range w.rows {
			for _, side := range []string{withSlipway, withBuildctl} {
				if result, ok := rs.find(w.name, row.name, side); ok {
					list = append(list, rs.linesOf(w, row, result)...)
				}
			}
		}
	}
	return list
}

func (rs *results) find(workload, row, side string) (result, bool) {
	for _, r := range rs.Rows {
		if r.Workload == workload && r.Row == row && r.Side == side {
			return r, true
		}
	}
	return result{}, false
}

func (rs *results) linesOf(w workload, row row, r result) (list []line) {
	what := w.title
	if row.title != "" {
		what += ": " + row.title
	}
	l := line{result: r, row: row, what: what}
	if !row.onlyMemory {
		timed := l
		timed.ours = r.Slipway.Seconds
		if r.BuildKit != nil {
			timed.theirs = r.BuildKit.Seconds
			if part := row.reach[r.Side]; part > 0 {
				timed.mark = max(part*timed.theirs, 1.25*r.Floor)
			}
		}
		if limit := row.limit.Seconds(); limit > 0 && r.Side == withSlipway {
			timed.mark = min(cmp.Or(timed.mark, limit), limit)
		}
		list = append(list, timed)
	}
	if row.memory == 0 && !row.onlyMemory {
		return list
	}
	l.isMemory, l.ours = true, float64(r.Slipway.Memory)
	if r.BuildKit != nil {
		l.theirs = float64(r.BuildKit.Memory)
		l.mark = row.memory * l.theirs
	}
	if row.against != "" {
		if before, ok := rs.find(w.name, row.against, r.Side); ok {
			l.mark = row.memory * float64(before.Slipway.Memory)
		}
	}
	if !row.onlyMemory {
		l.what += "; greatest memory"
	}
	return append(list, l)
}

// page is what is between the marks in the page: the picture and the tables.
func (rs *results) page(lines []line) string {
	var b strings.Builder
	first, last := "", ""
	for _, r := range rs.Rows {
		first, last = min(cmp.Or(first, r.Date), r.Date), max(last, r.Date)
	}
	when := last
	if first != last {
		when = first + " to " + last
	}
	m := rs.Machine
	fmt.Fprintf(&b, "Measured %s on %s with %d cores, %d GB of memory, Linux %s, %s; %s.\n\n![ratios](performance.svg)\n\n", when, m.CPU, m.Cores, m.MemoryGB, m.Kernel, m.FileSystem, m.Runtime)
	b.WriteString("| workload | client | BuildKit | Slipway | part | aim | floor | reached |\n|---|---|---:|---:|---:|---:|---:|---|\n")
	for _, l := range lines {
		fmt.Fprintf(&b, "| %s | `%s` | %s | %s | %s | %s | %s | %s |\n", l.what, client(l.Side), l.value(l.theirs), l.value(l.ours), l.part(), l.value(l.mark), l.floorText(), l.verdict())
	}
	b.WriteString("\nWhat it took, BuildKit's figure first: seconds of processor time of the daemon and what it started, and of the client; the daemon's\n" +
		"greatest memory; what the daemon caused to be written to disk.\n\n| workload | client | n | daemon's CPU | client's CPU | memory, MB | written, MB |\n|---|---|---:|---:|---:|---:|---:|\n")
	for _, l := range lines {
		if l.isMemory {
			continue
		}
		other := l.BuildKit
		if other == nil {
			other = &figures{}
		}
		fmt.Fprintf(&b, "| %s | `%s` | %d | %s / %s | %s / %s | %d / %d | %.1f / %.1f |\n", l.what, client(l.Side), l.N,
			seconds(other.DaemonSeconds), seconds(l.Slipway.DaemonSeconds), seconds(other.ClientSeconds), seconds(l.Slipway.ClientSeconds),
			other.Memory>>20, l.Slipway.Memory>>20, megabytes(other.Written), megabytes(l.Slipway.Written))
	}
	return b.String()
}

func client(side string) string {
	if side == withSlipway {
		return "slipway"
	}
	return "buildctl"
}

func (l line) value(v float64) string {
	switch {
	case v == 0:
		return ""
	case l.isMemory:
		return fmt.Sprintf("%.0f MB", v/(1<<20))
	default:
		return seconds(v) + " s"
	}
}

func (l line) part() string {
	if l.theirs == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", l.ours/l.theirs)
}

func (l line) floorText() string {
	if l.Floor == 0 || l.isMemory {
		return ""
	}
	return fmt.Sprintf("%s s: %s", seconds(l.Floor), l.floor)
}

func (l line) verdict() string {
	switch {
	case l.mark == 0:
		return ""
	case l.holds():
		return "yes"
	default:
		return "**no**"
	}
}

// seconds has three significant places or milliseconds.
func seconds(v float64) string {
	if v >= 10 {
		return fmt.Sprintf("%.1f", v)
	}
	if v >= 1 {
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", time.Duration(v*1e9).Seconds())
}

func megabytes(bytes int64) float64 { return float64(bytes) / (1 << 20) }

const (
	beginMark = "<!-- measured: go run ./hack/bench writes what is between these marks -->\n"
	endMark   = "<!-- end of what is measured -->\n"
)

// writePage replaces what is between the marks of a page, and keeps what people wrote around it.
func writePage(path, measured string) error {
	page := "# Performance\n\n" + beginMark + endMark
	content, err := os.ReadFile(path)
	if err == nil {
		page = string(content)
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	before, rest, ok := strings.Cut(page, beginMark)
	_, after, closed := strings.Cut(rest, endMark)
	if !ok || !closed {
		return fmt.Errorf("%s lacks the marks between which it is written", path)
	}
	return os.WriteFile(path, []byte(before+beginMark+measured+endMark+after), 0o644)
}
