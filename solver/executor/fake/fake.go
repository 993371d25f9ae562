// Package fake is an executor that runs a Go function in place of a process: a double for tests of what stands above, which
// need neither root nor a runtime, and mounts nothing.
//
// It keeps the contract of [executor.Executor] as far as no process is involved: layers that are missing are named, required
// secrets are asked for, outputs are sealed in order, cancelling is honoured.
package fake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/slipwaybuild/slipway/solver/executor"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// Func is the work of a step. It may be called concurrently, and should return when ctx ends. An error that is no
// [executor.ExitError] is returned as it is.
type Func func(ctx context.Context, c *Call) error

// Executor runs a [Func] for each step.
type Executor struct {
	store *layers.Store
	fn    Func
	runs  atomic.Int64
}

var _ executor.Executor = (*Executor)(nil)

// New makes an executor over a store.
func New(store *layers.Store, fn Func) *Executor { return &Executor{store: store, fn: fn} }

// Runs is how many steps were begun.
func (x *Executor) Runs() int { return int(x.runs.Load()) }

// File is something a step writes. Data is the content of a regular file; Size is filled in. A whiteout removes.
type File struct {
	fstree.Entry
	Data []byte
}

// Call is one step under way. It is not safe for concurrent use.
type Call struct {
	Spec     executor.Spec
	Services executor.Services
	IO       executor.IO

	store   *layers.Store
	refs    []*layers.Ref
	written []map[string]File // by mount, then by path
}

// Run implements [executor.Executor].
func (x *Executor) Run(ctx context.Context, spec executor.Spec, svc executor.Services, o executor.IO, _ progress.Writer) (*executor.Outcome, error) {
	x.runs.Add(1)
	if len(spec.Args) == 0 {
		return nil, &executor.InvalidSpecError{Field: "args", Err: errors.New("no command")}
	}
	if err := askSecrets(ctx, spec, svc); err != nil {
		return nil, err
	}
	c := &Call{Spec: spec, Services: svc, IO: withWriters(o), store: x.store}
	defer c.release()
	if err := c.pin(ctx); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if o.Started != nil {
		o.Started()
	}
	if err := c.exit(x.fn(ctx, c)); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
	return c.outcome(ctx)
}

// exit lets exit codes pass that the spec holds to be valid.
func (c *Call) exit(err error) error {
	var exit *executor.ExitError
	if errors.As(err, &exit) {
		if slices.Contains(c.Spec.ValidExitCodes, exit.Code) {
			return nil
		}
		exit.Args = c.Spec.Args
	}
	return err
}

func withWriters(o executor.IO) executor.IO {
	if o.Stdout == nil {
		o.Stdout = io.Discard
	}
	if o.Stderr == nil {
		o.Stderr = io.Discard
	}
	return o
}

func askSecrets(ctx context.Context, spec executor.Spec, svc executor.Services) error {
	ask := func(id string, optional bool) error {
		err := executor.ErrNoSecret
		if svc != nil {
			_, err = svc.Secret(ctx, id)
		}
		switch {
		case err == nil, optional && errors.Is(err, executor.ErrNoSecret):
			return nil
		case errors.Is(err, executor.ErrNoSecret):
			return &executor.MissingSecretError{ID: id}
		}
		return fmt.Errorf("secret %s: %w", id, err)
	}
	for _, m := range spec.Mounts {
		if m.Type == executor.MountSecret {
			if err := ask(m.ID, m.Optional); err != nil {
				return err
			}
		}
	}
	for _, e := range spec.SecretEnvs {
		if err := ask(e.ID, e.Optional); err != nil {
			return err
		}
	}
	return nil
}

func (c *Call) pin(ctx context.Context) error {
	var missing []layers.ID
	for _, m := range c.Spec.Mounts {
		c.written = append(c.written, map[string]File{})
		ref, err := c.store.Pin(ctx, m.Layers...)
		if errors.Is(err, layers.ErrNotFound) {
			missing = append(missing, c.missing(ctx, m.Layers)...)
		} else if err != nil {
			return fmt.Errorf("pin layers of %s: %w", m.Dest, err)
		}
		c.refs = append(c.refs, ref)
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return &executor.MissingInputError{IDs: slices.Compact(missing)}
	}
	return nil
}

func (c *Call) missing(ctx context.Context, ids []layers.ID) []layers.ID {
	return slices.DeleteFunc(slices.Clone(ids), func(id layers.ID) bool {
		ref, err := c.store.Pin(ctx, id)
		if err == nil {
			_ = ref.Release() // a hold of a moment
		}
		return err == nil
	})
}

func (c *Call) release() {
	for _, ref := range c.refs {
		if ref != nil {
			_ = ref.Release() // taken by us, once
		}
	}
}

// locate finds the bind mount that shows p, and the path in its stack.
func (c *Call) locate(p string) (int, string, error) {
	if !path.IsAbs(p) {
		p = path.Join("/", c.Spec.Cwd, p)
	}
	p = path.Clean(p)
	best, rel := -1, ""
	for i, m := range c.Spec.Mounts {
		dest := path.Join("/", m.Dest)
		r, ok := strings.CutPrefix(p+"/", strings.TrimSuffix(dest, "/")+"/")
		if ok && m.Type == executor.MountBind && (best < 0 || len(dest) >= len(c.Spec.Mounts[best].Dest)) {
			best, rel = i, strings.Trim(path.Join(m.Selector, r), "/")
		}
	}
	if best < 0 {
		return 0, "", &fs.PathError{Op: "find", Path: p, Err: fs.ErrNotExist}
	}
	return best, rel, nil
}

// ReadFile reads a file as the step sees it, with what the step wrote. Symlinks are not followed.
func (c *Call) ReadFile(ctx context.Context, p string) ([]byte, error) {
	i, rel, err := c.locate(p)
	if err != nil {
		return nil, err
	}
	if f, ok := c.written[i][rel]; ok {
		if f.Whiteout {
			return nil, &fs.PathError{Op: "read", Path: p, Err: fs.ErrNotExist}
		}
		return f.Data, nil
	}
	tree, err := c.store.Tree(ctx, c.refs[i])
	if err != nil {
		return nil, err
	}
	content, err := tree.Open(ctx, rel)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", p, err)
	}
	defer func() { _ = content.Close() }() // only read
	return io.ReadAll(io.NewSectionReader(content, 0, content.Size()))
}

// Write makes files, with paths absolute or relative to the working directory. Directories above that do not exist are made.
// What is written to a mount without output is forgotten.
func (c *Call) Write(files ...File) error {
	for _, f := range files {
		i, rel, err := c.locate(f.Path)
		if err != nil {
			return err
		}
		if c.Spec.Mounts[i].ReadOnly {
			return &fs.PathError{Op: "write", Path: f.Path, Err: errors.New("read-only file system")}
		}
		f.Path = rel
		if f.Mode&fstree.ModeType == 0 {
			f.Mode |= fstree.ModeRegular
		}
		f.Size = int64(len(f.Data))
		c.written[i][rel] = f
		for dir := path.Dir(rel); dir != "."; dir = path.Dir(dir) {
			if _, ok := c.written[i][dir]; !ok {
				c.written[i][dir] = File{Entry: fstree.Entry{Path: dir, Mode: fstree.ModeDir | 0o755}}
			}
		}
	}
	return nil
}

func (c *Call) outcome(ctx context.Context) (*executor.Outcome, error) {
	out := &executor.Outcome{}
	for i, m := range c.Spec.Mounts {
		if !m.Output {
			continue
		}
		ref, err := c.store.Pack(ctx, newSource(c.written[i]), layers.ImportOptions{Parents: m.Layers})
		if err != nil {
			for _, r := range out.Outputs {
				_ = r.Release() // the first error counts
			}
			return nil, fmt.Errorf("pack output of %s: %w", m.Dest, err)
		}
		out.Outputs = append(out.Outputs, ref)
	}
	return out, nil
}

// source yields files in the order of paths.
type source struct{ files []File }

func newSource(written map[string]File) *source {
	s := &source{}
	for _, f := range written {
		s.files = append(s.files, f)
	}
	slices.SortFunc(s.files, func(a, b File) int { return fstree.Compare(a.Path, b.Path) })
	return s
}

func (s *source) Next(context.Context) (fstree.Entry, func(context.Context) (io.ReadCloser, error), error) {
	if len(s.files) == 0 {
		return fstree.Entry{}, nil, io.EOF
	}
	f := s.files[0]
	s.files = s.files[1:]
	if !f.IsRegular() {
		return f.Entry, nil, nil
	}
	return f.Entry, func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(f.Data)), nil
	}, nil
}
