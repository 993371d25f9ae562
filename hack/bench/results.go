package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// results are all rows that were measured, not all of them at the same time.
type results struct {
	Machine machine  `json:"machine"`
	Rows    []result `json:"rows"`
}

// result is what became of one row with one client.
type result struct {
	Workload string `json:"workload"`
	Row      string `json:"row,omitempty"`
	Side     string `json:"side"` // whose figures Slipway is
	Date     string `json:"date"`
	Commit   string `json:"commit"`
	N        int    `json:"n"`

	Slipway  *figures `json:"slipway"`
	BuildKit *figures `json:"buildkit,omitempty"`
	Floor    float64  `json:"floor,omitempty"` // seconds
}

// figures of one side: medians of time, memory and bytes, means of processor time, whose clock is coarse.
type figures struct {
	Seconds       float64 `json:"seconds,omitempty"`
	DaemonSeconds float64 `json:"daemonCPU,omitempty"`
	ClientSeconds float64 `json:"clientCPU,omitempty"`
	Memory        int64   `json:"memory,omitempty"`  // bytes
	Written       int64   `json:"written,omitempty"` // bytes
}

func figuresOf(samples []sample) *figures {
	if len(samples) == 0 {
		return nil
	}
	pick := func(of func(sample) float64) (all []float64) {
		for _, s := range samples {
			all = append(all, of(s))
		}
		slices.Sort(all)
		return all
	}
	return &figures{
		Seconds:       median(pick(func(s sample) float64 { return s.wall.Seconds() })),
		DaemonSeconds: mean(pick(func(s sample) float64 { return s.daemon.Seconds() })),
		ClientSeconds: mean(pick(func(s sample) float64 { return s.client.Seconds() })),
		Memory:        int64(median(pick(func(s sample) float64 { return float64(s.peak) }))),
		Written:       int64(median(pick(func(s sample) float64 { return float64(s.written) }))),
	}
}

func median(sorted []float64) float64 {
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

func mean(all []float64) (m float64) {
	for _, v := range all {
		m += v / float64(len(all))
	}
	return m
}

// results are the rows of a workload that was measured.
func (r *run) results() (list []result) {
	commit, _ := exec.Command("git", "rev-parse", "--short=10", "HEAD").Output() // outside of a repository there is none to tell
	for _, row := range r.workload.rows {
		for _, side := range []string{withSlipway, withBuildctl} {
			ours := r.samples[sampleKey{row.name, side}]
			if len(ours) == 0 {
				continue
			}
			result := result{
				Workload: r.workload.name, Row: row.name, Side: side, N: len(ours),
				Date: time.Now().UTC().Format(time.DateOnly), Commit: strings.TrimSpace(string(commit)),
				Slipway: figuresOf(ours), BuildKit: figuresOf(r.samples[sampleKey{row.name, buildkit}]),
			}
			if floor := figuresOf(r.samples[sampleKey{row.name, floorSide}]); floor != nil {
				result.Floor = floor.Seconds
			}
			list = append(list, result)
		}
	}
	return list
}

// put replaces the rows of a workload.
func (rs *results) put(workload string, rows []result) {
	rs.Rows = slices.DeleteFunc(rs.Rows, func(r result) bool { return r.Workload == workload })
	rs.Rows = append(rs.Rows, rows...)
}

func readResults(path string) (*results, error) {
	rs := &results{}
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return rs, nil
	}
	if err != nil {
		return nil, err
	}
	return rs, json.Unmarshal(content, rs)
}

// write writes the three files.
func (rs *results) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	content, err := json.MarshalIndent(rs, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "performance.json"), append(content, '\n'), 0o644); err != nil {
		return err
	}
	lines := rs.lines()
	if err := os.WriteFile(filepath.Join(dir, "performance.svg"), picture(lines), 0o644); err != nil {
		return err
	}
	return writePage(filepath.Join(dir, "performance.md"), rs.page(lines))
}
