package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"
)

// bench is one run of the command.
type bench struct {
	options  options
	programs programs
	registry *registry
	machine  machine
	base     string // the image that builds start from
	dir      string
	trash    string
	sides    *regexp.Regexp
	number   int // of directories that were handed out
}

func newBench(ctx context.Context, o options) (b *bench, err error) {
	b = &bench{options: o}
	if b.sides, err = regexp.Compile(o.sides); err != nil {
		return nil, fmt.Errorf("-sides: %w", err)
	}
	for _, program := range []string{o.runtime, "busybox", "docker-registry", "findmnt", "cp", "tar", "sha256sum"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, err
		}
	}
	if o.dir != "" {
		if err := os.MkdirAll(o.dir, 0o755); err != nil {
			return nil, err
		}
	}
	if b.dir, err = os.MkdirTemp(o.dir, "bench"); err != nil {
		return nil, err
	}
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return nil, err
	}
	b.trash = filepath.Join(b.dir, "trash")
	if err := os.Mkdir(b.trash, 0o755); err != nil {
		return nil, err
	}
	if b.machine, err = thisMachine(b.dir, o.runtime); err != nil {
		return nil, err
	}
	if b.programs, err = findPrograms(ctx, o.bin, b.dir); err != nil {
		return nil, err
	}
	if b.registry, err = startRegistry(ctx, b.path("registry")); err != nil {
		return nil, err
	}
	if b.base, err = b.registry.pushBusybox(ctx); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *bench) close() error {
	return errors.Join(b.registry.stop(), os.RemoveAll(b.dir))
}

// path is a new name in the bench's directory.
func (b *bench) path(name string) string {
	b.number++
	return filepath.Join(b.dir, fmt.Sprintf("%02d-%s", b.number, name))
}

// discard has a tree deleted when nothing is measured any more, or now if the disk is getting full.
func (b *bench) discard(ctx context.Context, dir string) error {
	if err := os.Rename(dir, filepath.Join(b.trash, filepath.Base(dir))); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(b.dir, &fs); err != nil {
		return err
	}
	if free := int64(fs.Bavail) * fs.Bsize; free > 12<<30 {
		return nil
	}
	fmt.Fprintln(os.Stderr, "the disk is getting full: deleting, then waiting a minute, since files are made slower just after that")
	if err := os.RemoveAll(b.trash); err != nil {
		return err
	}
	if err := os.Mkdir(b.trash, 0o755); err != nil {
		return err
	}
	select {
	case <-time.After(time.Minute):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// measure runs one workload on its sides.
func (b *bench) measure(ctx context.Context, w workload) (rows []result, err error) {
	fmt.Fprintf(os.Stderr, "== %s: %s\n", w.name, w.title)
	r := &run{bench: b, ctx: ctx, n: b.options.n, workload: w, samples: map[sampleKey][]sample{}}
	if w.heavy {
		r.n = min(r.n, 3)
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := w.run(r); err != nil {
		return nil, err
	}
	return r.results(), nil
}
