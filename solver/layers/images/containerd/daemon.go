package containerd

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	contentproxy "github.com/containerd/containerd/v2/core/content/proxy"
	coreimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/slipwaybuild/slipway/solver/layers/images"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
)

// What is meant when nothing is said; buildkitd means the same.
const (
	DefaultAddress   = "/run/containerd/containerd.sock"
	DefaultNamespace = "buildkit"
)

// connectTime bounds the wait for the first answer.
const connectTime = 10 * time.Second

// Options goes with [Connect].
type Options struct {
	// Address is containerd's socket, a path or "unix://" and a path; empty is [DefaultAddress].
	Address string
	// Namespace is containerd's; empty is [DefaultNamespace].
	Namespace string
	// Snapshotter is what images are unpacked for; empty is containerd's default.
	Snapshotter string
	// Patience is how long calls are repeated while containerd does not answer; 0 is 30 seconds.
	Patience time.Duration
}

// Daemon is a running containerd. It is safe for concurrent use. Close it after those who use it.
type Daemon struct {
	address     string
	namespace   string
	snapshotter string
	uuid        string
	retry       retry
	client      *client.Client
	content     contentStore
}

var _ images.Backing = (*Daemon)(nil)

// Connect connects to a containerd, which must be there.
func Connect(ctx context.Context, o Options) (_ *Daemon, err error) {
	d := &Daemon{address: strings.TrimPrefix(o.Address, "unix://"), namespace: o.Namespace, snapshotter: o.Snapshotter}
	if d.address == "" {
		d.address = DefaultAddress
	}
	if d.namespace == "" {
		d.namespace = DefaultNamespace
	}
	if o.Patience == 0 {
		o.Patience = usualPatience
	}
	if strings.Contains(d.address, "://") || !filepath.IsAbs(d.address) {
		return nil, fmt.Errorf("containerd address %q is not the path of a socket", o.Address)
	}
	if _, err := namespaces.NamespaceRequired(namespaces.WithNamespace(ctx, d.namespace)); err != nil {
		return nil, fmt.Errorf("containerd namespace: %w", err)
	}
	d.retry = retry{address: d.address, patience: o.Patience}
	if err := d.dial(); err != nil {
		return nil, fmt.Errorf("connect to containerd at %s: %w", d.address, err)
	}
	if err := d.greet(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to containerd at %s: %w", d.address, err), d.client.Close())
	}
	return d, nil
}

func (d *Daemon) dial() (err error) {
	// After a restart containerd is asked for soon: on a socket, asking costs nothing.
	b := backoff.DefaultConfig
	b.BaseDelay, b.MaxDelay = firstPause, longestPause
	d.client, err = client.New(d.address,
		client.WithDefaultNamespace(d.namespace),
		client.WithDialOpts([]grpc.DialOption{
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: b, MinConnectTimeout: connectTime}),
			grpc.WithChainUnaryInterceptor(d.retry.unary),
		}))
	if err != nil {
		return err
	}
	d.content = contentStore{super: contentproxy.NewContentStore(d.client.Conn()), retry: d.retry, alive: d.alive}
	return nil
}

// greet finds out whether what listens is a containerd that can do what is needed.
func (d *Daemon) greet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(withoutRetry(ctx), connectTime)
	defer cancel()
	info, err := d.client.Server(ctx)
	if err != nil {
		return err
	}
	d.uuid = info.UUID
	if d.snapshotter == "" {
		return nil
	}
	answer, err := d.client.IntrospectionService().Plugins(ctx, fmt.Sprintf("type==%s", plugins.SnapshotPlugin))
	if err != nil {
		return fmt.Errorf("list snapshotters: %w", err)
	}
	var there []string
	for _, p := range answer.Plugins {
		if p.InitErr == nil {
			there = append(there, p.ID)
		}
	}
	if !slices.Contains(there, d.snapshotter) {
		return fmt.Errorf("it has no snapshotter %q; it has %s", d.snapshotter, strings.Join(there, ", "))
	}
	return nil
}

// alive asks for a sign of life, and waits for it as every call does.
func (d *Daemon) alive(ctx context.Context) error {
	_, err := d.client.Server(ctx)
	return err
}

// Close ends the connection.
func (d *Daemon) Close() error { return d.client.Close() }

// UUID is what containerd calls itself, the same after every start.
func (d *Daemon) UUID() string { return d.uuid }

// Namespace is where the images are.
func (d *Daemon) Namespace() string { return d.namespace }

// ID implements [images.Backing].
func (d *Daemon) ID() string { return "containerd\x00" + d.address + "\x00" + d.namespace }

// Shared implements [images.Backing].
func (*Daemon) Shared() bool { return true }

// Content implements [images.Backing].
func (d *Daemon) Content() content.Store { return d.content }

// Images implements [images.Backing].
func (d *Daemon) Images() coreimages.Store { return d.client.ImageService() }

// Leases implements [images.Backing].
func (d *Daemon) Leases() leases.Manager { return d.client.LeasesService() }

// Atomically implements [images.Backing]: containerd has no transactions for its clients.
func (*Daemon) Atomically(ctx context.Context, fn func(context.Context) error) error { return fn(ctx) }

// Collect implements [images.Backing]. Containerd collects what nobody in any namespace needs.
func (d *Daemon) Collect(ctx context.Context) error {
	l, err := d.Leases().Create(ctx, leases.WithRandomID(), leases.WithExpiration(time.Hour))
	if err != nil {
		return err
	}
	// To wait for the collector is a service of deleting.
	return d.Leases().Delete(context.WithoutCancel(ctx), l, leases.SynchronousDelete)
}
