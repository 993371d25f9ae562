package filesync

import (
	"errors"
	"sync"
	"testing"

	"github.com/tonistiigi/fsutil/types"
)

// A refusal used to be announced a moment before its reason was there, and whoever sent it then had none.
func TestRefusalHasItsReason(t *testing.T) {
	t.Parallel()
	for range 2000 {
		r := newReceiver(Request{})
		var wg sync.WaitGroup
		wg.Go(func() {
			p, ok := r.outgoing()
			if !ok || p.Type != types.PACKET_ERR || string(p.Data) != "refused" {
				t.Errorf("got %v, %v", p, ok)
			}
		})
		// Something else wakes the sender at any moment.
		wg.Go(func() { r.cond.Broadcast() })
		r.refuse(errors.New("refused"))
		wg.Wait()
	}
}
