package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := command(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	list, render  bool
	run           string
	n             int
	scale         float64
	out, dir, bin string
	runtime       string
	debug         bool
	sides         string
}

func command(ctx context.Context) (err error) {
	var o options
	flag.BoolVar(&o.list, "list", false, "list the workloads and measure nothing")
	flag.BoolVar(&o.render, "render", false, "write the page and the picture anew from performance.json and measure nothing")
	flag.StringVar(&o.run, "run", "", "measure the workloads that this expression matches")
	flag.IntVar(&o.n, "n", 5, "repetitions; workloads that move gigabytes take at most 3")
	flag.Float64Var(&o.scale, "scale", 1, "factor for numbers and sizes of files")
	flag.StringVar(&o.out, "out", "docs", "directory of performance.md, performance.svg and performance.json")
	flag.StringVar(&o.dir, "dir", "", "directory to work in, on the file system that is to be measured (default: a new one in $TMPDIR)")
	flag.StringVar(&o.bin, "bin", "", "directory of slipway, slipwayd, buildctl and buildkitd (default: they are built)")
	flag.StringVar(&o.runtime, "runtime", "runc", "OCI runtime of both daemons")
	flag.StringVar(&o.sides, "sides", "", "measure only the sides that this expression matches: slipway, slipwayd+buildctl, buildkitd+buildctl")
	flag.BoolVar(&o.debug, "debug", false, "have slipwayd serve profiles at debug.sock beside its root, whose place is printed")
	flag.Parse()
	which, err := regexp.Compile(o.run)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	if o.list {
		for _, w := range workloads() {
			fmt.Printf("%-12s %s\n", w.name, w.title)
		}
		return nil
	}
	path := filepath.Join(o.out, "performance.json")
	if o.render {
		results, err := readResults(path)
		if err != nil {
			return err
		}
		return results.write(o.out)
	}
	if os.Geteuid() != 0 {
		return errors.New("both daemons need root")
	}
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	results, err := readResults(path)
	if err != nil {
		return err
	}
	for _, w := range workloads() {
		if !which.MatchString(w.name) {
			continue
		}
		rows, err := b.measure(ctx, w)
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		results.put(w.name, rows)
		results.Machine = b.machine
		if err := results.write(o.out); err != nil {
			return err
		}
	}
	return nil
}
