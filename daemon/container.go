package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/slipwaybuild/slipway/frontend/gateway"
	"github.com/slipwaybuild/slipway/solver/executor"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/ops"
	fstypes "github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc/codes"
)

// containers are those of a build that were not released yet. The zero value is ready.
type containers struct {
	mu     sync.Mutex
	closed bool
	all    map[*container]struct{}
}

func (c *containers) add(ctr *container) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrNoBuild
	}
	if c.all == nil {
		c.all = map[*container]struct{}{}
	}
	c.all[ctr] = struct{}{}
	return nil
}

func (c *containers) remove(ctr *container) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.all, ctr)
}

// release ends those that nobody released.
func (c *containers) release() error {
	c.mu.Lock()
	c.closed = true
	left := c.all
	c.all = nil
	c.mu.Unlock()
	var errs []error
	for ctr := range left {
		errs = append(errs, ctr.Container.Release())
	}
	return errors.Join(errs...)
}

// container is an interactive container as frontends know them.
type container struct {
	*ops.Container
	build *build
}

var _ gwclient.Container = (*container)(nil)

// NewContainer makes a container over references of the build, and over what failed steps left.
func (b *build) NewContainer(ctx context.Context, r gwclient.NewContainerRequest) (gwclient.Container, error) {
	req := ops.ContainerRequest{
		ID: strings.ToLower(rand.Text()), Network: r.NetMode, Hostname: r.Hostname, ExtraHosts: r.ExtraHosts,
		Platform: r.Platform, Sessions: b.groupNow,
	}
	for _, m := range r.Mounts {
		shown, err := b.shown(ctx, m)
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.Dest, err)
		}
		req.Shows = append(req.Shows, shown)
		req.Mounts = append(req.Mounts, &pb.Mount{
			Dest: m.Dest, Selector: m.Selector, Readonly: m.Readonly, MountType: m.MountType,
			CacheOpt: m.CacheOpt, SecretOpt: m.SecretOpt, SSHOpt: m.SSHOpt,
		})
	}
	made, err := b.loader.NewContainer(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("make container: %w", err)
	}
	ctr := &container{Container: made, build: b}
	if err := b.containers.add(ctr); err != nil {
		return nil, errors.Join(err, made.Release())
	}
	return ctr, nil
}

// shown is what a mount shows: it stays with the build. Nil is nothing.
func (b *build) shown(ctx context.Context, m gwclient.Mount) (*layers.Ref, error) {
	if m.Ref != nil {
		ref, ok := m.Ref.(*gateway.Reference)
		if !ok {
			return nil, invalid("a reference of another build")
		}
		return b.stackOf(ctx, ref)
	}
	if m.ResultID == "" {
		return nil, nil
	}
	if ref := b.leftovers.find(m.ResultID); ref != nil {
		return ref, nil
	}
	return nil, grpcerrors.WrapCode(fmt.Errorf("no such result in this build: %q", m.ResultID), codes.NotFound)
}

// Start starts a process. One that cannot be started is an error here and not of its Wait.
func (c *container) Start(ctx context.Context, r gwclient.StartRequest) (gwclient.ContainerProcess, error) {
	p, err := c.Container.Start(ctx, r)
	if err != nil {
		return nil, exitError(err)
	}
	return containerProcess{p}, nil
}

// Release ends the container.
func (c *container) Release(context.Context) error {
	c.build.containers.remove(c)
	return c.Container.Release()
}

// ReadFile reads a file, or a range of it.
func (c *container) ReadFile(_ context.Context, r gwclient.ReadContainerRequest) ([]byte, error) {
	offset, length := 0, maxFile+1
	if n := r.Range; n != nil {
		if n.Offset < 0 || n.Length < 0 {
			return nil, invalid(fmt.Sprintf("invalid range of %s: a negative offset or length", r.Filename))
		}
		offset = n.Offset
		if n.Length > 0 {
			length = min(length, n.Length)
		}
	}
	data, err := c.Container.ReadFile(r.MountIndex, r.Filename, int64(offset), int64(length))
	if err == nil && len(data) > maxFile {
		return nil, tooBig(r.Filename)
	}
	return data, err
}

// StatFile describes a file.
func (c *container) StatFile(_ context.Context, r gwclient.StatContainerRequest) (*fstypes.Stat, error) {
	return c.Container.StatFile(r.MountIndex, r.Path)
}

// ReadDir lists a directory.
func (c *container) ReadDir(_ context.Context, r gwclient.ReadDirContainerRequest) ([]*fstypes.Stat, error) {
	return c.Container.ReadDir(r.MountIndex, r.Path, r.IncludePattern)
}

// containerProcess is a process as frontends know them.
type containerProcess struct{ p *executor.Process }

// Wait returns a [gwpb.ExitError] for a process that failed.
func (p containerProcess) Wait() error { return exitError(p.p.Wait(context.Background())) }

// Resize tells the size of the terminal.
func (p containerProcess) Resize(ctx context.Context, size gwclient.WinSize) error {
	return p.p.Resize(ctx, executor.Size{Rows: size.Rows, Cols: size.Cols})
}

// Signal sends a signal.
func (p containerProcess) Signal(ctx context.Context, sig syscall.Signal) error {
	return p.p.Signal(ctx, int(sig))
}

// Kill ends the process without asking it.
func (p containerProcess) Kill() { p.p.Kill() }

// exitError adds to an error how a process ended, if that is what it says.
func exitError(err error) error {
	var exit *executor.ExitError
	var start *executor.StartError
	switch {
	case errors.As(err, &exit):
		return &gwpb.ExitError{ExitCode: uint32(exit.Code), Err: err}
	case errors.As(err, &start):
		return &gwpb.ExitError{ExitCode: uint32(start.Code), Err: err}
	case errors.Is(err, executor.ErrReleased), errors.Is(err, executor.ErrKilled):
		return grpcerrors.WrapCode(err, codes.Canceled)
	}
	return err
}
