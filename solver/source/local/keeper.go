package local

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/slipwaybuild/slipway/solver/layers"
)

// keepers copy what was lent and is still wanted after a while: a step may run for minutes before files are copied that their
// owner goes on working at. A build that is over soon, or has read everything, is spared the copy.
type keepers struct {
	store *layers.Store
	log   *slog.Logger
	after time.Duration
	ctx   context.Context
	end   context.CancelFunc

	mu     sync.Mutex // guards closed, and that work begins before the wait for its end
	closed bool
	work   sync.WaitGroup
}

// keepAfter is for how long nothing was read before a copy is made.
const keepAfter = 2 * time.Second

func newKeepers(store *layers.Store, log *slog.Logger) *keepers {
	k := &keepers{store: store, log: log, after: keepAfter}
	k.ctx, k.end = context.WithCancel(context.Background())
	return k
}

// watch begins waiting for its time. It ends with the layer.
func (k *keepers) watch(id layers.ID, v *hostView) {
	var look func()
	look = func() {
		k.mu.Lock()
		if k.closed {
			k.mu.Unlock()
			return
		}
		k.work.Add(1)
		k.mu.Unlock()
		defer k.work.Done()
		again, err := k.look(id, v)
		if err != nil && k.ctx.Err() == nil {
			k.log.Warn("copy of local source", "error", err)
		}
		if again {
			time.AfterFunc(k.after, look)
		}
	}
	time.AfterFunc(k.after, look)
}

func (k *keepers) close() {
	k.end()
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	k.work.Wait()
}

// look copies if it is time, and otherwise says whether it may be later.
func (k *keepers) look(id layers.ID, v *hostView) (again bool, err error) {
	if v.left.Load() <= 0 || v.broken.Load() != nil {
		return false, nil
	}
	ref, err := k.store.Pin(k.ctx, id)
	if errors.Is(err, layers.ErrNotFound) {
		return false, nil // nobody wants it any more
	}
	if err != nil {
		return false, err
	}
	defer func() {
		if rerr := ref.Release(); err == nil {
			err = rerr
		}
	}()
	if v.active.Load() > 0 || time.Since(time.Unix(0, v.last.Load())) < k.after {
		return true, nil
	}
	ids, err := k.store.Solidify(k.ctx, ref)
	if err != nil {
		return false, err
	}
	return false, v.useCopy(k.ctx, k.store, layers.ID(ids[0]))
}

// useCopy reads from a layer of the same contents from here on.
func (v *hostView) useCopy(ctx context.Context, store *layers.Store, id layers.ID) error {
	ref, err := store.Pin(ctx, id)
	if err != nil {
		return err
	}
	t, err := store.Tree(ctx, ref)
	if err != nil {
		return errors.Join(err, ref.Release())
	}
	// Whoever called holds the lent layer, so it is not being closed.
	v.copy = ref
	v.copied.Store(&t)
	return nil
}
