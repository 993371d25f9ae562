package images

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
)

const (
	// labelTemporary marks leases that end with the process; its value is the store's id.
	labelTemporary = "slipway/temporary"
	// keepPeriod is how long [Store.Keep] keeps content at least; at most it is twice as long.
	keepPeriod = 7 * 24 * time.Hour
	// usePeriod is the same of layers that a build has found and not read yet.
	usePeriod = 24 * time.Hour
	// temporaryMost ends leases of a process that never comes back.
	temporaryMost = 7 * 24 * time.Hour
)

// WithLease returns a context under which everything written to Content stays until done is called. done may be called with a
// context of its own; a lease whose done is never called ends with the process.
func (s *Store) WithLease(ctx context.Context) (_ context.Context, done func(context.Context) error, _ error) {
	l := &lateLease{lease: leases.Lease{ID: "slipway-tmp-" + rand.Text()}}
	l.create = func(ctx context.Context) error {
		_, err := s.leases.Create(ctx, leases.WithID(l.lease.ID), leases.WithLabel(labelTemporary, s.id), leases.WithExpiration(temporaryMost))
		if err != nil && !errdefs.IsAlreadyExists(err) { // it would be ours
			return fmt.Errorf("lease content: %w", err)
		}
		return nil
	}
	ctx = leases.WithLease(context.WithValue(ctx, lateKey{}, l), l.lease.ID)
	if s.backing.Shared() {
		if err := takeLease(ctx); err != nil {
			return nil, nil, err
		}
	}
	done = func(ctx context.Context) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if !l.taken {
			return nil
		}
		return ignoreNotFound(s.leases.Delete(ctx, l.lease))
	}
	return ctx, done, nil
}

// lateLease is a lease that is made when something is first written under it: a build that changed nothing writes nothing, and need not
// wait for the disk twice.
type lateLease struct {
	lease  leases.Lease
	create func(context.Context) error

	mu    sync.Mutex
	taken bool
}

type lateKey struct{}

// takeLease makes the lease of the context, if there is one that is not made yet.
func takeLease(ctx context.Context) error {
	l, ok := ctx.Value(lateKey{}).(*lateLease)
	if !ok {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.taken {
		return nil
	}
	err := l.create(ctx)
	l.taken = err == nil
	return err
}

// leased is WithLease for a context that has no lease yet.
func (s *Store) leased(ctx context.Context) (context.Context, func(context.Context) error, error) {
	if _, ok := leases.FromContext(ctx); ok {
		return ctx, func(context.Context) error { return nil }, nil
	}
	return s.WithLease(ctx)
}

// Keep keeps content that belongs to no image, such as the manifests of images that builds start from, for a week or two from
// now. Content that is not there is ignored.
func (s *Store) Keep(ctx context.Context, digests ...digest.Digest) error {
	return s.keepFor(ctx, keepPeriod, digests)
}

// keepFor keeps content for one or two periods from now.
func (s *Store) keepFor(ctx context.Context, period time.Duration, digests []digest.Digest) error {
	l, err := s.keepLease(ctx, period)
	if err != nil {
		return err
	}
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
	l, err := s.keepLease(ctx, keepPeriod)
	if err != nil {
		return nil, err
	}
	return leases.WithLease(ctx, l.ID), nil
}

// keepPrefix is how the ids of leases that keep content begin.
const keepPrefix = "slipway-keep-"

// keepLease returns the lease of this period. One per period instead of one per digest: entering is an idempotent write, and
// nothing needs to be renewed.
func (s *Store) keepLease(ctx context.Context, period time.Duration) (leases.Lease, error) {
	now := time.Now()
	n := now.Unix() / int64(period.Seconds())
	l := leases.Lease{ID: fmt.Sprintf("%s%s-%d", keepPrefix, period, n)}
	// Others who share the backing may have deleted it.
	if s.kept.has(l.ID, "") && !s.backing.Shared() {
		return l, nil
	}
	end := time.Unix((n+2)*int64(period.Seconds()), 0)
	_, err := s.leases.Create(ctx, leases.WithID(l.ID), leases.WithExpiration(end.Sub(now)))
	switch {
	case err == nil:
		s.kept.forget(l.ID)
	case !errdefs.IsAlreadyExists(err):
		return l, fmt.Errorf("keep content: %w", err)
	}
	s.kept.add(l.ID, "")
	return l, nil
}

// keptMost bounds what is remembered of leases; those of past periods are forgotten with the rest.
const keptMost = 1 << 16

// keptSet remembers what is in a lease already, to spare a write to disk for every build of the same images. Leases do not lose
// content while they last, and last longer than their period.
type keptSet struct {
	mu  sync.Mutex
	set map[keptKey]bool
}

type keptKey struct {
	lease string
	d     digest.Digest
}

func (k *keptSet) has(lease string, d digest.Digest) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.set[keptKey{lease, d}]
}

func (k *keptSet) add(lease string, d digest.Digest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.set == nil || len(k.set) >= keptMost {
		k.set = map[keptKey]bool{}
	}
	k.set[keptKey{lease, d}] = true
}

// forget is for a lease that is new: what one of its name had is not in it.
func (k *keptSet) forget(lease string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	maps.DeleteFunc(k.set, func(have keptKey, _ bool) bool { return have.lease == lease })
}

func (s *Store) dropTemporaryLeases(ctx context.Context) error {
	left, err := s.leases.List(ctx, fmt.Sprintf("labels.%q==%s", labelTemporary, s.id))
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range left {
		if err := ignoreNotFound(s.leases.Delete(ctx, l)); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Unkeep ends what Keep and Keeping promised, for whoever wants the space at once: what belongs to no image goes with the next
// collection. Nothing may be under way that counts on it. In a content store that is shared with others it does nothing: there the
// leases may be another daemon's.
func (s *Store) Unkeep(ctx context.Context) error {
	if s.backing.Shared() {
		return nil
	}
	all, err := s.leases.List(ctx)
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	var errs []error
	for _, l := range all {
		if !strings.HasPrefix(l.ID, keepPrefix) {
			continue
		}
		errs = append(errs, ignoreNotFound(s.leases.Delete(ctx, l)))
		s.kept.forget(l.ID)
	}
	return errors.Join(errs...)
}
