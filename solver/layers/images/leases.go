package images

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
)

const (
	// labelTemporary marks leases that end with the process.
	labelTemporary = "slipway/temporary"
	// keepPeriod is how long [Store.Keep] keeps content at least; at most it is twice as long.
	keepPeriod = 7 * 24 * time.Hour
)

// WithLease returns a context under which everything written to Content stays until done is called. done may be called with a
// context of its own; a lease whose done is never called ends with the process.
func (s *Store) WithLease(ctx context.Context) (_ context.Context, done func(context.Context) error, _ error) {
	id := "tmp-" + rand.Text()
	nsctx := namespaces.WithNamespace(ctx, s.ns)
	l, err := s.leases.Create(nsctx, leases.WithID(id), leases.WithLabel(labelTemporary, "true"))
	if err != nil {
		return nil, nil, fmt.Errorf("lease content: %w", err)
	}
	done = func(ctx context.Context) error {
		err := s.leases.Delete(namespaces.WithNamespace(ctx, s.ns), l)
		if errdefs.IsNotFound(err) {
			return nil
		}
		return err
	}
	return leases.WithLease(ctx, id), done, nil
}

// Keep keeps content that belongs to no image, such as the manifests of images that builds start from, for a week or two from
// now. Content that is not there is ignored.
func (s *Store) Keep(ctx context.Context, digests ...digest.Digest) error {
	l, err := s.keepLease(ctx)
	if err != nil {
		return err
	}
	ctx = namespaces.WithNamespace(ctx, s.ns)
	for _, d := range digests {
		if s.kept.has(l.ID, d) {
			continue
		}
		err := s.leases.AddResource(ctx, l, leases.Resource{ID: d.String(), Type: "content"})
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("keep content %s: %w", d, err)
		}
		s.kept.add(l.ID, d)
	}
	return nil
}

// Keeping returns a context under which what is written to Content is kept as by Keep.
func (s *Store) Keeping(ctx context.Context) (context.Context, error) {
	l, err := s.keepLease(ctx)
	if err != nil {
		return nil, err
	}
	return leases.WithLease(ctx, l.ID), nil
}

// keepLease returns the lease of this week. One per week instead of one per digest: entering is an idempotent write, and nothing
// needs to be renewed.
func (s *Store) keepLease(ctx context.Context) (leases.Lease, error) {
	now := time.Now()
	period := now.Unix() / int64(keepPeriod.Seconds())
	l := leases.Lease{ID: fmt.Sprintf("keep-%d", period)}
	if s.kept.has(l.ID, "") {
		return l, nil
	}
	end := time.Unix((period+2)*int64(keepPeriod.Seconds()), 0)
	_, err := s.leases.Create(namespaces.WithNamespace(ctx, s.ns), leases.WithID(l.ID), leases.WithExpiration(end.Sub(now)))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return l, fmt.Errorf("keep content: %w", err)
	}
	s.kept.add(l.ID, "")
	return l, nil
}

// keptSet remembers what is in a lease already, to spare a write to disk for every build of the same images. Leases do not lose
// content while they last, and last longer than their period.
type keptSet struct {
	mu    sync.Mutex
	lease string
	set   map[digest.Digest]bool
}

func (k *keptSet) has(lease string, d digest.Digest) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lease == lease && k.set[d]
}

func (k *keptSet) add(lease string, d digest.Digest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lease != lease {
		k.lease, k.set = lease, map[digest.Digest]bool{}
	}
	k.set[d] = true
}

func (s *Store) dropTemporaryLeases(ctx context.Context) error {
	ctx = namespaces.WithNamespace(ctx, s.ns)
	left, err := s.leases.List(ctx, fmt.Sprintf("labels.%q==true", labelTemporary))
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range left {
		if err := s.leases.Delete(ctx, l); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
