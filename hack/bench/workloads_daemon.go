package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// monorepo has 32 clients build 32 services at the same moment. Each copies its own directory and one that all share.
func monorepo(r *run) error {
	const services = 32
	common := r.scaled(2_000)
	own := (r.scaled(50_000) - common) / services
	if err := r.start(withSlipway, withBuildctl, buildkit); err != nil {
		return err
	}
	var dir string
	return r.repeat(func(rep int) (err error) {
		if dir, err = r.dockerfile(""); err != nil {
			return err
		}
		if err := makeTree(filepath.Join(dir, "lib"), common, uint64(rep)+100); err != nil {
			return err
		}
		for i := range services {
			if err := makeTree(filepath.Join(dir, fmt.Sprint("service", i)), own, uint64(rep*services+i)+200); err != nil {
				return err
			}
			text := strings.ReplaceAll("FROM "+r.bench.base+"\nCOPY lib /src/lib\nCOPY service% /src/service%\nRUN test -d /src/service%\n", "%", fmt.Sprint(i))
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("Dockerfile.", i)), []byte(text), 0o644); err != nil {
				return err
			}
		}
		return r.settle()
	}, func(s *side, _ int) error {
		return s.measure("", func() (spent, error) {
			each := make([]spent, services)
			began := time.Now()
			var g errgroup.Group
			for i := range services {
				g.Go(func() (err error) {
					each[i], err = s.build(request{context: dir, dockerfile: fmt.Sprint("Dockerfile.", i)})
					return err
				})
			}
			err := g.Wait()
			total := spent{wall: time.Since(began)}
			for _, one := range each {
				total.cpu += one.cpu
			}
			return total, err
		})
	}, nil)
}

// start is a daemon's first moments.
func start(r *run) error {
	dir, err := r.dockerfile("FROM " + r.bench.base + "\nRUN : 1\n")
	if err != nil {
		return err
	}
	r.with(withSlipway, withBuildctl, buildkit)
	return r.repeat(nil, func(s *side, _ int) error {
		if err := s.end(); err != nil {
			return err
		}
		began := time.Now()
		if err := s.begin(); err != nil {
			return err
		}
		took, err := s.build(request{context: dir})
		if err != nil {
			return err
		}
		took.wall = time.Since(began)
		used, err := usageOf(s.cmd.Process.Pid)
		if err != nil {
			return err
		}
		_, peak, err := resident(s.cmd.Process.Pid)
		if err != nil {
			return err
		}
		r.note("build", s.name, sample{wall: took.wall, client: took.cpu, daemon: used.cpu, peak: peak, written: used.written})
		return s.idle("idle")
	}, nil)
}

// idle notes the memory of a daemon that has had nothing to do for a while.
func (s *side) idle(row string) error {
	select {
	case <-time.After(10 * time.Second):
	case <-s.run.ctx.Done():
		return s.run.ctx.Err()
	}
	now, _, err := resident(s.cmd.Process.Pid)
	if err != nil {
		return err
	}
	s.run.note(row, s.name, sample{peak: now})
	return nil
}

// growth builds and builds.
func growth(r *run) error {
	dir, err := r.dockerfile("FROM " + r.bench.base + "\nARG N\nRUN echo $N > /n\nCOPY Dockerfile /\n")
	if err != nil {
		return err
	}
	if err := r.start(withSlipway, buildkit); err != nil {
		return err
	}
	r.n = 1
	return r.repeat(nil, func(s *side, _ int) error {
		for i := range r.scaled(1000) {
			if i == 10 {
				if err := s.idle("10"); err != nil {
					return err
				}
			}
			if _, err := s.build(request{context: dir, args: []string{fmt.Sprint("N=", i)}, output: "type=image,name=bench.local/growth"}); err != nil {
				return err
			}
		}
		return s.idle("1000")
	}, nil)
}
