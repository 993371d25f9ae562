package filesync

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/tonistiigi/fsutil/types"
)

// A file larger than the window is asked for when the consumer comes to it. If all before it was known, nothing else happens then that
// would wake the sender of requests.
func TestLargeFileBehindKnownOnesIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver(Request{Want: func(st *types.Stat, _ string) bool { return st.Path == "large" }})
		var sent []uint32
		go func() {
			for p, ok := r.outgoing(); ok; p, ok = r.outgoing() {
				sent = append(sent, p.ID)
			}
		}()
		for _, st := range []*types.Stat{{Path: "known", Mode: 0o644, Size: 1}, {Path: "large", Mode: 0o644, Size: windowBytes + 1}, nil} {
			if err := r.handle(&types.Packet{Type: types.PACKET_STAT, Stat: st}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		for range 2 {
			if _, err := r.next(); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if len(sent) != 1 || sent[0] != 1 {
			t.Errorf("asked for %v", sent)
		}
		r.end(errors.New("the test is over"))
		synctest.Wait()
	})
}
