// Package layerstest holds the contract of the layer store as tests. Every realisation runs all of it.
package layerstest

import (
	"bytes"
	"context"
	"os"
	"sync"
	"testing"

	"github.com/slipwaybuild/slipway/solver/layers"
)

// Open opens a store under root for a test.
type Open func(ctx context.Context, root string, change func(*layers.Options)) (*layers.Store, error)

// Run runs the contract on stores that open opens. It needs root, for mounts.
func Run(t *testing.T, open Open) {
	if !isRoot() {
		t.Skip("mounting needs root")
	}
	for name, cases := range map[string]map[string]func(*Bench){
		"Mounts": mountCases, "Refs": refCases, "Uppers": upperCases, "Odd": oddCases, "Volumes": volumeCases,
		"Space": spaceCases, "Restart": restartCases, "Fetch": fetchCases, "Lent": lentCases,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for name, fn := range cases {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					fn(newBench(t, open))
				})
			}
		})
	}
}

// Bench is one test's store, with what tests do all the time.
type Bench struct {
	*testing.T
	S    *layers.Store
	Root string
	open Open

	mu    sync.Mutex
	owned []*layers.Ref
}

func newBench(t *testing.T, open Open) *Bench {
	b := &Bench{T: t, Root: t.TempDir(), open: open}
	b.Reopen(nil)
	t.Cleanup(func() {
		b.releaseOwned()
		if err := b.S.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

// Reopen closes the store, if it is open, and opens it again.
func (b *Bench) Reopen(change func(*layers.Options)) {
	b.Helper()
	if b.S != nil {
		b.releaseOwned()
		b.OK(b.S.Close())
	}
	s, err := b.open(b.Context(), b.Root, change)
	if err != nil {
		b.Fatalf("open: %v", err)
	}
	b.S = s
}

// OK ends the test if err is not nil.
func (b *Bench) OK(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// Import makes a blob layer of a tar. The hold ends with the test, as those of the helpers that follow do.
func (b *Bench) Import(entries ...any) *layers.Ref {
	b.Helper()
	data, _ := Tar(b, entries...)
	r, err := b.S.Import(b.Context(), bytes.NewReader(data), layers.ImportOptions{})
	b.OK(err)
	return b.Owned(r)
}

// Owned releases r when the store is closed, if that was not done.
func (b *Bench) Owned(r *layers.Ref) *layers.Ref {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.owned = append(b.owned, r)
	return r
}

func (b *Bench) releaseOwned() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.owned {
		_ = r.Release() // the test may have
	}
	b.owned = nil
}

// Stack puts layers over each other.
func (b *Bench) Stack(refs ...*layers.Ref) *layers.Ref { return b.Owned(b.S.Stack(refs...)) }

// View calls fn with r mounted read-only.
func (b *Bench) View(r *layers.Ref, fn func(root string)) {
	b.Helper()
	m, err := b.S.Compose(b.Context(), r, nil)
	b.OK(err)
	defer func() { b.OK(m.Close()) }()
	fn(m.Path())
}

// Snapshot describes r mounted read-only.
func (b *Bench) Snapshot(r *layers.Ref) (got map[string]string) {
	b.Helper()
	b.View(r, func(root string) { got = Snapshot(b, root) })
	return got
}

// Step runs fn over r mounted writable, and returns the layer of what it changed.
func (b *Bench) Step(r *layers.Ref, fn func(root string)) *layers.Ref {
	b.Helper()
	u, err := b.S.NewUpper(b.Context())
	b.OK(err)
	m, err := b.S.Compose(b.Context(), r, u)
	b.OK(err)
	fn(m.Path())
	b.OK(m.Close())
	sealed, err := b.S.Seal(b.Context(), u, layers.ImportOptions{Parents: r.IDs()})
	b.OK(err)
	return b.Owned(sealed)
}

// Write writes a file.
func (b *Bench) Write(path, data string) {
	b.Helper()
	b.OK(os.WriteFile(path, []byte(data), 0o644)) //nolint:gosec // as steps do
}
