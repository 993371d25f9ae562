package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/slipwaybuild/slipway/solver/progress"
)

// statusWait is how long a viewer may be ahead of its build: clients open Status and Solve at the same time.
const statusWait = 10 * time.Second

// builds knows the builds that run and the stories of those that ended lately.
type builds struct {
	dir  string
	keep int

	mu       sync.Mutex
	running  map[string]*progress.Journal
	ended    []string // refs, oldest first
	journals map[string]*progress.Journal
	arrived  chan struct{} // closed and replaced whenever a build arrives
}

// openBuilds keeps stories below dir, which it empties: those of a former daemon are nobody's.
func openBuilds(dir string, keep int) (*builds, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("empty the build journals: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of build journals: %w", err)
	}
	return &builds{
		dir: dir, keep: keep,
		running:  map[string]*progress.Journal{},
		journals: map[string]*progress.Journal{},
		arrived:  make(chan struct{}),
	}, nil
}

// start opens the story of a build that begins.
func (b *builds) start(ref string) (*progress.Journal, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.running[ref] != nil {
		return nil, fmt.Errorf("%w: %s", ErrBuildExists, ref)
	}
	if old := b.journals[ref]; old != nil {
		b.forget(ref)
	}
	j, err := progress.Create(b.path(ref))
	if err != nil {
		return nil, fmt.Errorf("open journal of build %s: %w", ref, err)
	}
	b.running[ref] = j
	b.journals[ref] = j
	close(b.arrived)
	b.arrived = make(chan struct{})
	return j, nil
}

// end closes the story and forgets the oldest ones.
func (b *builds) end(ref string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	j := b.running[ref]
	delete(b.running, ref)
	b.ended = append(b.ended, ref)
	for len(b.ended) > b.keep {
		b.forget(b.ended[0])
	}
	if j == nil {
		return nil
	}
	return j.Close()
}

// forget removes an ended build's story. Readers that are in it read on: the file is gone by name only.
func (b *builds) forget(ref string) {
	for i, r := range b.ended {
		if r == ref {
			b.ended = append(b.ended[:i], b.ended[i+1:]...)
			break
		}
	}
	if b.running[ref] != nil {
		return
	}
	delete(b.journals, ref)
	_ = os.Remove(b.path(ref))
}

func (b *builds) path(ref string) string {
	sum := sha256.Sum256([]byte(ref))
	return filepath.Join(b.dir, hex.EncodeToString(sum[:16]))
}

// follow returns a reader of a build's story, waiting for a build that has not begun.
func (b *builds) follow(ctx context.Context, ref string) (*progress.Reader, error) {
	wait := time.NewTimer(statusWait)
	defer wait.Stop()
	for {
		b.mu.Lock()
		j, arrived := b.journals[ref], b.arrived
		b.mu.Unlock()
		if j != nil {
			return j.NewReader()
		}
		select {
		case <-arrived:
		case <-wait.C:
			return nil, fmt.Errorf("%w: %s", ErrNoBuild, ref)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// active counts the builds that run.
func (b *builds) active() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.running)
}

// close ends the stories of builds that did not end by themselves.
func (b *builds) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for ref, j := range b.running {
		errs = append(errs, j.Close())
		delete(b.running, ref)
	}
	return errors.Join(errs...)
}
