// Package storetest is the contract of [solver.Store] as tests. Every store runs them:
//
//	func TestStore(t *testing.T) {
//		storetest.TestStore(t, func(t *testing.T) storetest.Fixture { … })
//	}
package storetest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"testing"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver"
)

// Fixture is a store to try and what it can be filled with.
type Fixture struct {
	// Store is empty.
	Store solver.Store
	// NewResult makes a result that the store can keep, which the caller owns. Equal n give results that are the same.
	NewResult func(t *testing.T, n int) solver.Result
	// Same tells whether two results, neither nil, are the same.
	Same func(a, b solver.Result) bool
	// Reopen closes the store and opens it again as a new process would. Nil if the store keeps nothing.
	Reopen func(t *testing.T) solver.Store
}

// TestStore tries the stores that newFixture makes, one for each subtest. The factory cleans up with t.Cleanup, and checks
// there that no result is left held.
func TestStore(t *testing.T, newFixture func(t *testing.T) Fixture) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, f Fixture)
	}{
		{"an empty store finds nothing and fails at nothing", testEmpty},
		{"an alias is found and replaced", testAlias},
		{"results are found, each time with holds of their own", testResults},
		{"an empty result stays empty, and no output is no output", testEmptyResults},
		{"results are replaced", testReplace},
		{"a forgotten record is a miss and may be put again", testForget},
		{"content digests are told apart by identity, output and selector", testContent},
		{"content digests of replaced results are forgotten", testContentReplaced},
		{"a record that was put is there when the store is opened again", testReopen},
		{"many use it at once", testConcurrent},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, newFixture(t)) })
	}
}

func identity(n int) solver.Identity {
	return solver.Identity(sha256.Sum256(fmt.Appendf(nil, "identity %d", n)))
}

func promise(n int) solver.Promise {
	return solver.Promise(sha256.Sum256(fmt.Appendf(nil, "promise %d", n)))
}

func record(n int) solver.Record {
	parts := solver.Parts{{Name: "op", Value: fmt.Sprint(n)}, {Name: "bytes", Value: "\x00\xff\n"}}
	return solver.Record{
		Step: digest.FromString(fmt.Sprint(n)), Name: fmt.Sprintf("step %d", n), Promise: promise(n),
		PromiseKey: parts, IdentityKey: parts, DurationMS: int64(n),
	}
}

// put stores results made from ns under identity i; -1 stands for an empty one.
func put(t *testing.T, f Fixture, i int, ns ...int) {
	t.Helper()
	results := make([]solver.Result, len(ns))
	for at, n := range ns {
		if n >= 0 {
			results[at] = f.NewResult(t, n)
		}
	}
	if err := f.Store.PutResults(t.Context(), identity(i), record(i), results); err != nil {
		t.Fatalf("PutResults: %v", err)
	}
	release(t, results)
}

func release(t *testing.T, results []solver.Result) {
	t.Helper()
	for _, r := range results {
		if r == nil {
			continue
		}
		if err := r.Release(); err != nil {
			t.Errorf("Release: %v", err)
		}
	}
}

// wantResults checks that identity i holds the results made from ns.
func wantResults(t *testing.T, f Fixture, i int, ns ...int) {
	t.Helper()
	results, ok, err := f.Store.Results(t.Context(), identity(i))
	if err != nil || !ok {
		t.Fatalf("Results(%d) = found %v, %v; want found", i, ok, err)
	}
	defer release(t, results)
	if len(results) != len(ns) {
		t.Fatalf("Results(%d) has %d outputs, want %d", i, len(results), len(ns))
	}
	for at, n := range ns {
		if (n < 0) != (results[at] == nil) {
			t.Errorf("Results(%d)[%d] = %v, want empty %v", i, at, results[at], n < 0)
			continue
		}
		if n < 0 {
			continue
		}
		want := f.NewResult(t, n)
		if !f.Same(results[at], want) {
			t.Errorf("Results(%d)[%d] = %v, want %v", i, at, results[at], want)
		}
		release(t, []solver.Result{want})
	}
}

func wantNoResults(t *testing.T, f Fixture, i int) {
	t.Helper()
	if results, ok, err := f.Store.Results(t.Context(), identity(i)); ok || err != nil || len(results) > 0 {
		t.Errorf("Results(%d) = %v, %v, %v; want a miss", i, results, ok, err)
	}
}

func wantAlias(t *testing.T, s solver.Store, p, i int) {
	t.Helper()
	if got, ok, err := s.Alias(t.Context(), promise(p)); err != nil || !ok || got != identity(i) {
		t.Errorf("Alias(%d) = %v, %v, %v; want %v", p, got, ok, err, identity(i))
	}
}

func testEmpty(t *testing.T, f Fixture) {
	if _, ok, err := f.Store.Alias(t.Context(), promise(1)); ok || err != nil {
		t.Errorf("Alias = %v, %v; want a miss", ok, err)
	}
	wantNoResults(t, f, 1)
	if _, ok, err := f.Store.Content(t.Context(), identity(1), 0, "all"); ok || err != nil {
		t.Errorf("Content = %v, %v; want a miss", ok, err)
	}
	if err := f.Store.Forget(t.Context(), identity(1)); err != nil {
		t.Errorf("Forget of what is not there: %v", err)
	}
}

func testAlias(t *testing.T, f Fixture) {
	// An alias may stand for a record that is not there yet, or any more.
	for _, i := range []int{1, 2, 1} {
		if err := f.Store.PutAlias(t.Context(), promise(7), identity(i)); err != nil {
			t.Fatalf("PutAlias: %v", err)
		}
		wantAlias(t, f.Store, 7, i)
	}
	if _, ok, err := f.Store.Alias(t.Context(), promise(8)); ok || err != nil {
		t.Errorf("Alias of another promise = %v, %v; want a miss", ok, err)
	}
}

func testResults(t *testing.T, f Fixture) {
	put(t, f, 1, 10, 11)
	put(t, f, 2, 20)
	for range 2 {
		wantResults(t, f, 1, 10, 11)
	}
	wantResults(t, f, 2, 20)
	wantNoResults(t, f, 3)

	// A hold outlives the record.
	held, ok, err := f.Store.Results(t.Context(), identity(1))
	if err != nil || !ok {
		t.Fatalf("Results = %v, %v", ok, err)
	}
	defer release(t, held)
	if err := f.Store.Forget(t.Context(), identity(1)); err != nil {
		t.Fatalf("Forget: %v", err)
	}
	want := f.NewResult(t, 10)
	defer release(t, []solver.Result{want})
	if !f.Same(held[0], want) {
		t.Errorf("a held result is %v after Forget, want %v", held[0], want)
	}
}

func testEmptyResults(t *testing.T, f Fixture) {
	put(t, f, 1, -1, 5, -1)
	put(t, f, 2)
	wantResults(t, f, 1, -1, 5, -1)
	wantResults(t, f, 2)
}

func testReplace(t *testing.T, f Fixture) {
	put(t, f, 1, 10)
	put(t, f, 1, 12, 13)
	wantResults(t, f, 1, 12, 13)
	put(t, f, 1, 12, 13)
	wantResults(t, f, 1, 12, 13)
}

func testForget(t *testing.T, f Fixture) {
	put(t, f, 1, 10)
	put(t, f, 2, 10)
	if err := f.Store.PutAlias(t.Context(), promise(1), identity(1)); err != nil {
		t.Fatalf("PutAlias: %v", err)
	}
	for range 2 {
		if err := f.Store.Forget(t.Context(), identity(1)); err != nil {
			t.Fatalf("Forget: %v", err)
		}
	}
	wantNoResults(t, f, 1)
	wantResults(t, f, 2, 10)
	wantAlias(t, f.Store, 1, 1) // what is lost keeps its name
	put(t, f, 1, 10)
	wantResults(t, f, 1, 10)
}

func testContent(t *testing.T, f Fixture) {
	put(t, f, 1, 10, 11)
	put(t, f, 2, 20)
	type key struct {
		i, output int
		selector  string
	}
	keys := []key{{1, 0, "a"}, {1, 1, "a"}, {1, 0, "b\x00/ü"}, {2, 0, "a"}}
	for n, k := range keys {
		d := digest.FromString(fmt.Sprint(n))
		if err := f.Store.PutContent(t.Context(), identity(k.i), k.output, k.selector, d); err != nil {
			t.Fatalf("PutContent: %v", err)
		}
	}
	for n, k := range keys {
		want := digest.FromString(fmt.Sprint(n))
		got, ok, err := f.Store.Content(t.Context(), identity(k.i), k.output, k.selector)
		if err != nil || !ok || got != want {
			t.Errorf("Content(%+v) = %v, %v, %v; want %v", k, got, ok, err, want)
		}
	}
}

func testContentReplaced(t *testing.T, f Fixture) {
	put(t, f, 1, 10)
	if err := f.Store.PutContent(t.Context(), identity(1), 0, "a", digest.FromString("old")); err != nil {
		t.Fatalf("PutContent: %v", err)
	}
	put(t, f, 1, 11)
	if d, ok, err := f.Store.Content(t.Context(), identity(1), 0, "a"); ok || err != nil {
		t.Errorf("Content = %v, %v, %v; want a miss, for the results are others now", d, ok, err)
	}
}

func testReopen(t *testing.T, f Fixture) {
	if f.Reopen == nil {
		t.Skip("the store keeps nothing")
	}
	put(t, f, 1, 10, -1, 11)
	if err := f.Store.PutAlias(t.Context(), promise(1), identity(1)); err != nil {
		t.Fatalf("PutAlias: %v", err)
	}
	want := digest.FromString("content")
	if err := f.Store.PutContent(t.Context(), identity(1), 2, "a", want); err != nil {
		t.Fatalf("PutContent: %v", err)
	}
	f.Store = f.Reopen(t)
	wantAlias(t, f.Store, 1, 1)
	wantResults(t, f, 1, 10, -1, 11)
	if got, ok, err := f.Store.Content(t.Context(), identity(1), 2, "a"); err != nil || !ok || got != want {
		t.Errorf("Content = %v, %v, %v; want %v", got, ok, err, want)
	}
}

func testConcurrent(t *testing.T, f Fixture) {
	ctx := context.WithoutCancel(t.Context())
	var wg sync.WaitGroup
	for g := range 4 {
		results := []solver.Result{f.NewResult(t, g)}
		wg.Go(func() {
			defer release(t, results)
			for n := range 20 {
				i := identity((g + n) % 5)
				check(t, "PutResults", f.Store.PutResults(ctx, i, record(n), results))
				check(t, "PutAlias", f.Store.PutAlias(ctx, promise(n%5), i))
				found, _, err := f.Store.Results(ctx, i)
				check(t, "Results", err)
				release(t, found)
				_, _, err = f.Store.Alias(ctx, promise(n%5))
				check(t, "Alias", err)
				check(t, "PutContent", f.Store.PutContent(ctx, i, 0, "a", digest.FromString("x")))
				_, _, err = f.Store.Content(ctx, i, 0, "a")
				check(t, "Content", err)
				if n%7 == 0 {
					check(t, "Forget", f.Store.Forget(ctx, i))
				}
			}
		})
	}
	wg.Wait()
}

func check(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
}
