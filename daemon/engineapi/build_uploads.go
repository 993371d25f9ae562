package engineapi

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// uploadWait is how long a build and the request that brings its context wait for each other.
const uploadWait = 30 * time.Second

// uploads brings the two requests of one build together: that of the build, and that with its context in the body. They come in
// either order.
type uploads struct {
	wait time.Duration

	mu    sync.Mutex
	pairs map[string]*pair
}

// pair is where two requests meet. Its map entry goes with the last of them.
type pair struct {
	offered        chan *offer // holds one
	giving, taking bool
	users          int
}

// offer is a context that waits for its build.
type offer struct {
	body  *requestBody
	taken chan struct{}
}

func newUploads(wait time.Duration) *uploads {
	return &uploads{wait: wait, pairs: map[string]*pair{}}
}

// join finds the pair of an id, as the giver or the taker of it; there is one of each.
func (u *uploads) join(id string, giving bool) (*pair, func(), error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	p := u.pairs[id]
	if p == nil {
		p = &pair{offered: make(chan *offer, 1)}
		u.pairs[id] = p
	}
	role := &p.taking
	if giving {
		role = &p.giving
	}
	if *role {
		return nil, nil, conflict("build ID %s: another request does this already", id)
	}
	*role = true
	p.users++
	return p, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if p.users--; p.users == 0 && u.pairs[id] == p {
			delete(u.pairs, id)
		}
	}, nil
}

// give offers a context and returns when it was read or will not be: an error if no build came for it.
func (u *uploads) give(ctx context.Context, id string, body *requestBody) error {
	p, leave, err := u.join(id, true)
	if err != nil {
		return err
	}
	defer leave()
	o := &offer{body: body, taken: make(chan struct{})}
	p.offered <- o
	timer := time.NewTimer(u.wait)
	defer timer.Stop()
	select {
	case <-o.taken:
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C:
		err = withStatus(http.StatusRequestTimeout, "no build asked for the context of build ID %s within %s", id, u.wait)
	}
	if err != nil {
		select {
		case <-p.offered: // withdrawn
			return err
		case <-o.taken: // just in time
		}
	}
	select {
	case <-body.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// take waits for the context of a build. The caller closes what it gets, or the other request waits for ever.
func (u *uploads) take(ctx context.Context, id string) (*requestBody, error) {
	p, leave, err := u.join(id, false)
	if err != nil {
		return nil, err
	}
	defer leave()
	timer := time.NewTimer(u.wait)
	defer timer.Stop()
	select {
	case o := <-p.offered:
		close(o.taken)
		return o.body, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timer.C:
		return nil, invalid("the context of build ID %s did not arrive within %s", id, u.wait)
	}
}

// waiting counts the pairs that are not complete, or not yet left.
func (u *uploads) waiting() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.pairs)
}
