package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// workload is something both daemons are asked to do.
type workload struct {
	name, title string
	rows        []row
	heavy       bool // moves gigabytes: few repetitions
	run         func(*run) error
}

// row is one thing that a workload measures. Reach is the part of BuildKit's time that Slipway is to take, by client.
type row struct {
	name  string // within the workload; may be empty
	title string
	floor string // what the floor is; empty is none
	reach map[string]float64
	limit time.Duration // that the command slipway is to stay below besides; 0 is none

	// memory is the part of BuildKit's greatest memory that Slipway is to have, or of its own in the row against; 0 is no aim.
	memory     float64
	onlyMemory bool // memory at one moment is all that is measured
	against    string
}

// Sides: a daemon with a client.
const (
	withSlipway  = "slipway"
	withBuildctl = "slipwayd+buildctl"
	buildkit     = "buildkitd+buildctl"
)

// run is a workload that is being measured.
type run struct {
	bench    *bench
	ctx      context.Context
	workload workload
	n        int
	sides    []*side
	samples  map[sampleKey][]sample
}

type sampleKey struct{ row, side string }

// sample is one repetition.
type sample struct {
	wall, client, daemon time.Duration
	peak, written        int64
}

// floorSide is whose samples the floor's are.
const floorSide = "floor"

// side is a client with a daemon of its own.
type side struct {
	*daemon
	run  *run
	name string
}

func (r *run) close() error {
	var errs []error
	for _, s := range r.sides {
		errs = append(errs, s.end())
	}
	return errors.Join(errs...)
}

// with names the sides of a workload that begins and ends their daemons itself.
func (r *run) with(names ...string) {
	for _, name := range names {
		if r.bench.sides.MatchString(name) {
			r.sides = append(r.sides, &side{run: r, name: name})
		}
	}
}

// start starts the daemons of the given sides.
func (r *run) start(names ...string) error {
	r.with(names...)
	for _, s := range r.sides {
		if err := s.begin(); err != nil {
			return err
		}
	}
	return nil
}

// settle waits until files that were just made are no longer young: whoever decides by change times whether a file is the same must not
// trust those of the last moments, and people rarely build twice in them.
func (r *run) settle() error {
	select {
	case <-time.After(3 * time.Second):
		return nil
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
}

func (s *side) begin() (err error) {
	kind := "slipwayd"
	if s.name == buildkit {
		kind = "buildkitd"
	}
	s.daemon, err = s.run.bench.startDaemon(s.run.ctx, kind, s.run.bench.path("d"))
	return err
}

// end stops the daemon and forgets all it had.
func (s *side) end() error {
	if s.daemon == nil {
		return nil
	}
	err := s.daemon.stop()
	dir := s.dir
	s.daemon = nil
	return errors.Join(err, s.run.bench.discard(context.WithoutCancel(s.run.ctx), dir))
}

// index tells sides apart by number.
func (s *side) index() int { return slices.Index(s.run.sides, s) }

// renew replaces the daemon by one that knows nothing.
func (s *side) renew() error {
	if err := s.end(); err != nil {
		return err
	}
	return s.begin()
}

// repeat calls do once for each side, n times; the floor's measurements come last in each round. Sides take turns in being first.
func (r *run) repeat(prepare func(rep int) error, do func(s *side, rep int) error, floor func(rep int) error) error {
	for rep := range r.n {
		if prepare != nil {
			if err := prepare(rep); err != nil {
				return err
			}
		}
		for i := range r.sides {
			s := r.sides[(i+rep)%len(r.sides)]
			if err := do(s, rep); err != nil {
				return fmt.Errorf("%s, repetition %d: %w", s.name, rep+1, err)
			}
		}
		if floor != nil {
			if err := floor(rep); err != nil {
				return fmt.Errorf("the floor, repetition %d: %w", rep+1, err)
			}
		}
	}
	return nil
}

// build has the side's client build, and measures nothing.
func (s *side) build(q request) (spent, error) {
	p := s.run.bench.programs
	if s.name == withSlipway {
		return execute(s.run.ctx, nil, p.slipway, q.slipway(s.addr())...)
	}
	return execute(s.run.ctx, q.llb, p.buildctl, q.buildctl(s.addr())...)
}

// measure notes what do took as a repetition of a row.
func (s *side) measure(row string, do func() (spent, error)) error {
	pid := s.cmd.Process.Pid
	if err := forgetPeak(pid); err != nil {
		return err
	}
	before, err := usageOf(pid)
	if err != nil {
		return err
	}
	took, err := do()
	if err != nil {
		return fmt.Errorf("%w\nthe daemon's log:\n%s", err, s.logText())
	}
	after, err := usageOf(pid)
	if err != nil {
		return err
	}
	_, peak, err := resident(pid)
	if err != nil {
		return err
	}
	used := after.since(before)
	s.run.note(row, s.name, sample{wall: took.wall, client: took.cpu, daemon: used.cpu, peak: peak, written: used.written})
	return nil
}

// measureBuild measures a build of the side's client.
func (s *side) measureBuild(row string, q request) error {
	return s.measure(row, func() (spent, error) { return s.build(q) })
}

func (r *run) note(row, side string, s sample) {
	key := sampleKey{row, side}
	r.samples[key] = append(r.samples[key], s)
	fmt.Fprintf(os.Stderr, "%-10s %-10s %-20s %8.3fs  cpu %6.2fs + %5.2fs  peak %5d MB  written %6.1f MB\n",
		r.workload.name, row, side, s.wall.Seconds(), s.daemon.Seconds(), s.client.Seconds(), s.peak>>20, float64(s.written)/(1<<20))
}

// floor measures a program, whose working directory is dir, as the floor of a row.
func (r *run) floor(row, dir, program string, args ...string) error {
	took, err := executeIn(r.ctx, dir, nil, program, args...)
	if err != nil {
		return err
	}
	r.note(row, floorSide, sample{wall: took.wall, client: took.cpu})
	return nil
}

// floorOf measures a function as the floor of a row.
func (r *run) floorOf(row string, do func() error) error {
	began := time.Now()
	if err := do(); err != nil {
		return err
	}
	r.note(row, floorSide, sample{wall: time.Since(began)})
	return nil
}

// dockerfile makes a directory with a Dockerfile, whose %s is the base image.
func (r *run) dockerfile(text string) (dir string, err error) {
	dir = r.bench.path("ctx")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o644)
}

// scaled is a number of files or a size, by the wish of the command line.
func (r *run) scaled(n int) int { return max(1, int(float64(n)*r.bench.options.scale)) }
