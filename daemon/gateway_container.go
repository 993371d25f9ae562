package daemon

import (
	"context"
	"fmt"
	"sync"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"
)

// maxContainers bounds how many containers one driver may hold: each holds mounts of the host.
const maxContainers = 1 << 10

// drivenContainers names the containers of one driver by the ids that it chose. The zero value is ready.
type drivenContainers struct {
	mu     sync.Mutex
	closed bool
	byID   map[string]gwclient.Container
}

func (d *drivenContainers) add(id string, c gwclient.Container) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return ErrNoBuild
	case len(d.byID) >= maxContainers:
		return grpcerrors.WrapCode(fmt.Errorf("a build holds %d containers at most", maxContainers), codes.ResourceExhausted)
	case d.byID[id] != nil:
		return grpcerrors.WrapCode(fmt.Errorf("there is a container %q in this build", id), codes.AlreadyExists)
	}
	if d.byID == nil {
		d.byID = map[string]gwclient.Container{}
	}
	d.byID[id] = c
	return nil
}

func (d *drivenContainers) find(id string) (gwclient.Container, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.byID[id]; c != nil {
		return c, nil
	}
	return nil, noContainer(id)
}

// take finds a container and forgets it.
func (d *drivenContainers) take(id string) (gwclient.Container, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.byID[id]
	delete(d.byID, id)
	if c == nil {
		return nil, noContainer(id)
	}
	return c, nil
}

// close returns those that are left; there will be no more.
func (d *drivenContainers) close() map[string]gwclient.Container {
	d.mu.Lock()
	defer d.mu.Unlock()
	left := d.byID
	d.closed, d.byID = true, nil
	return left
}

func noContainer(id string) error {
	return grpcerrors.WrapCode(fmt.Errorf("no such container in this build, or it was released: %q", id), codes.NotFound)
}

// NewContainer composes a container, in which nothing runs yet.
func (g *Gateway) NewContainer(ctx context.Context, r *gwpb.NewContainerRequest) (*gwpb.NewContainerResponse, error) {
	return call(ctx, g, func(ctx context.Context) (*gwpb.NewContainerResponse, error) {
		req, err := g.containerRequest(r)
		if err != nil {
			return nil, err
		}
		c, err := g.bridge.NewContainer(ctx, req)
		if err != nil {
			return nil, err
		}
		if err := g.containers.add(r.ContainerID, c); err != nil {
			_ = c.Release(ctx) // the first error is the one that counts
			return nil, err
		}
		return &gwpb.NewContainerResponse{}, nil
	})
}

func (g *Gateway) containerRequest(r *gwpb.NewContainerRequest) (gwclient.NewContainerRequest, error) {
	req := gwclient.NewContainerRequest{
		Hostname: r.Hostname, NetMode: r.Network, ExtraHosts: r.ExtraHosts, Platform: r.Platform, Constraints: r.Constraints,
	}
	if r.ContainerID == "" {
		return req, invalid("a container without an id")
	}
	for i, m := range r.Mounts {
		if m == nil {
			return req, invalid(fmt.Sprintf("mount %d is nil", i))
		}
		mount := gwclient.Mount{
			Selector: m.Selector, Dest: m.Dest, ResultID: m.ResultID, Readonly: m.Readonly, MountType: m.MountType,
			CacheOpt: m.CacheOpt, SecretOpt: m.SecretOpt, SSHOpt: m.SSHOpt,
		}
		// References that were given out and what failed steps left have ids of one kind; the build knows the latter.
		if ref, err := g.refOf(m.ResultID); err == nil {
			mount.Ref = ref
		}
		req.Mounts = append(req.Mounts, mount)
	}
	return req, nil
}

// ReleaseContainer ends a container and everything in it.
func (g *Gateway) ReleaseContainer(ctx context.Context, r *gwpb.ReleaseContainerRequest) (*gwpb.ReleaseContainerResponse, error) {
	return call(ctx, g, func(ctx context.Context) (*gwpb.ReleaseContainerResponse, error) {
		c, err := g.containers.take(r.ContainerID)
		if err != nil {
			return nil, err
		}
		return &gwpb.ReleaseContainerResponse{}, c.Release(ctx)
	})
}

// ReadFileContainer reads a file in a mount of a container, as [Gateway.ReadFile] does in a reference.
func (g *Gateway) ReadFileContainer(ctx context.Context, r *gwpb.ReadFileRequest) (*gwpb.ReadFileResponse, error) {
	return look(ctx, g, r.Ref, func(ctx context.Context, c gwclient.Container) (*gwpb.ReadFileResponse, error) {
		req := gwclient.ReadContainerRequest{MountIndex: int(r.MountIndex), ReadRequest: gwclient.ReadRequest{Filename: r.FilePath}}
		if n := r.Range; n != nil {
			req.Range = &gwclient.FileRange{Offset: int(n.Offset), Length: int(n.Length)}
		}
		data, err := c.ReadFile(ctx, req)
		return &gwpb.ReadFileResponse{Data: data}, err
	})
}

// ReadDirContainer lists a directory in a mount of a container.
func (g *Gateway) ReadDirContainer(ctx context.Context, r *gwpb.ReadDirRequest) (*gwpb.ReadDirResponse, error) {
	return look(ctx, g, r.Ref, func(ctx context.Context, c gwclient.Container) (*gwpb.ReadDirResponse, error) {
		entries, err := c.ReadDir(ctx, gwclient.ReadDirContainerRequest{
			MountIndex: int(r.MountIndex), ReadDirRequest: gwclient.ReadDirRequest{Path: r.DirPath, IncludePattern: r.IncludePattern},
		})
		return &gwpb.ReadDirResponse{Entries: entries}, err
	})
}

// StatFileContainer describes a file in a mount of a container.
func (g *Gateway) StatFileContainer(ctx context.Context, r *gwpb.StatFileRequest) (*gwpb.StatFileResponse, error) {
	return look(ctx, g, r.Ref, func(ctx context.Context, c gwclient.Container) (*gwpb.StatFileResponse, error) {
		st, err := c.StatFile(ctx, gwclient.StatContainerRequest{MountIndex: int(r.MountIndex), StatRequest: gwclient.StatRequest{Path: r.Path}})
		return &gwpb.StatFileResponse{Stat: st}, err
	})
}

// look does something with a container.
func look[T any](ctx context.Context, g *Gateway, id string, do func(context.Context, gwclient.Container) (*T, error)) (*T, error) {
	return call(ctx, g, func(ctx context.Context) (*T, error) {
		c, err := g.containers.find(id)
		if err != nil {
			return nil, err
		}
		res, err := do(ctx, c)
		if err != nil {
			return nil, missing(err)
		}
		return res, nil
	})
}
