package session

import "github.com/slipwaybuild/slipway/session/peer"

// Owned is what a [Caller] may be as well: one that knows whose session it is.
type Owned interface {
	// Owner is who opened the session, as far as its connection tells.
	Owner() peer.Identity
}

var _ Owned = (*remote)(nil)

// Owner implements [Owned].
func (r *remote) Owner() peer.Identity { return r.owner }
