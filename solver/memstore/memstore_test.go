package memstore_test

import (
	"sync/atomic"
	"testing"

	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/memstore"
	"github.com/slipwaybuild/slipway/solver/storetest"
)

type result struct {
	n     int
	holds *atomic.Int64
}

func (r *result) Clone() solver.Result { r.holds.Add(1); return &result{r.n, r.holds} }
func (r *result) Release() error       { r.holds.Add(-1); return nil }

func TestStore(t *testing.T) {
	storetest.TestStore(t, func(t *testing.T) storetest.Fixture {
		s := memstore.New()
		var holds atomic.Int64
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			if n := holds.Load(); n != 0 {
				t.Errorf("%d holds are left", n)
			}
		})
		return storetest.Fixture{
			Store: s,
			NewResult: func(_ *testing.T, n int) solver.Result {
				holds.Add(1)
				return &result{n, &holds}
			},
			Same: func(a, b solver.Result) bool { return a.(*result).n == b.(*result).n },
		}
	})
}
