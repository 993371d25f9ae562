package resume

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/slipwaybuild/slipway/session/peer"
)

// ErrUnsupported is returned by Dial when the daemon does not offer to restore connections.
var ErrUnsupported = errors.New("the daemon does not offer to restore connections")

// How a client tries again.
const (
	// begin is how long a client tries to get a Conn from a daemon that hangs up without a word. No daemon that is known does.
	begin      = 30 * time.Second
	shortPause = 50 * time.Millisecond
	longPause  = time.Second
	// after is how long a client goes on after the daemon's grace time, since the daemon may have noticed the loss later.
	after = 30 * time.Second
)

// Dial opens a Conn over paths that open makes; open is called again, with a context of its own, whenever a path is lost, until the
// Conn is closed. ctx is for dialling only. first is a path that is open already; nil for none. ErrUnsupported means that the daemon is
// there and wants connections without this.
func Dial(ctx context.Context, first net.Conn, open func(context.Context) (net.Conn, error)) (*Conn, error) {
	return dialWith(ctx, first, open, usualTiming())
}

func dialWith(ctx context.Context, first net.Conn, open func(context.Context) (net.Conn, error), t timing) (*Conn, error) {
	say := hello{process: peer.Self()}
	pause, began := shortPause, time.Now()
	for {
		conn := first
		if first = nil; conn == nil {
			var err error
			if conn, err = open(ctx); err != nil {
				return nil, err
			}
		}
		told, r, err := ask(ctx, conn, say, t)
		var refused *refusal
		switch {
		case err == nil:
			d := &dialer{open: open, token: told.token, patience: told.grace + after, direct: peer.Direct(conn, told.process)}
			d.Conn = newConn(t, conn, peer.Of(conn))
			d.waits = true
			go d.run(conn, r)
			return d.Conn, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.As(err, &refused), errors.Is(err, errForeign):
			return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
		case time.Since(began) > begin:
			return nil, fmt.Errorf("%w, or the connection is very bad: %w", ErrUnsupported, err)
		}
		if !sleep(ctx.Done(), pause) {
			return nil, context.Cause(ctx)
		}
		pause = min(2*pause, longPause)
	}
}

// dialer keeps a Conn supplied with paths.
type dialer struct {
	*Conn
	open     func(context.Context) (net.Conn, error)
	token    string
	patience time.Duration
	direct   *peer.Process // the daemon, if nothing stands between; may be nil
}

func (d *dialer) run(conn net.Conn, r *bufio.Reader) {
	defer func() {
		if d.direct != nil {
			_ = d.direct.Close() // was only watched
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-d.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	var received uint64
	for {
		err := d.serve(conn, r, received)
		if isClosed(d.ended) {
			return
		}
		if conn, r, received, err = d.restore(ctx, err); err != nil {
			d.end(fmt.Errorf("the connection to the daemon was lost: %w", err))
			return
		}
	}
}

// restore opens paths until one is accepted. lost is why the last one ended.
func (d *dialer) restore(ctx context.Context, lost error) (net.Conn, *bufio.Reader, uint64, error) {
	since, pause := time.Now(), time.Duration(0)
	for {
		if pause > 0 && !sleep(ctx.Done(), pause+rand.N(pause)) {
			return nil, nil, 0, lost
		}
		pause = min(max(2*pause, shortPause), longPause)
		conn, r, received, err := d.attempt(ctx)
		var refused *refusal
		switch {
		case err == nil:
			return conn, r, received, nil
		case errors.As(err, &refused) && refused.status < http.StatusInternalServerError:
			return nil, nil, 0, fmt.Errorf("%w; the daemon does not take it up again: %s", lost, refused.text)
		case errors.Is(err, errForeign):
			return nil, nil, 0, fmt.Errorf("%w; %w", lost, err)
		case absent(err) && d.direct != nil && d.direct.Ended():
			return nil, nil, 0, fmt.Errorf("%w; the daemon has ended", lost)
		case time.Since(since) > d.patience:
			return nil, nil, 0, fmt.Errorf("%w; not restored within %s: %w", lost, d.patience, err)
		}
	}
}

func (d *dialer) attempt(ctx context.Context) (net.Conn, *bufio.Reader, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	conn, err := d.open(ctx)
	if err != nil {
		return nil, nil, 0, err
	}
	told, r, err := ask(ctx, conn, hello{token: d.token, received: d.received(), process: peer.Self()}, d.timing)
	if err != nil {
		return nil, nil, 0, err
	}
	return conn, r, told.received, nil
}

// absent tells that nobody listens where the daemon did.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// sleep returns false when done came first.
func sleep(done <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-done:
		return false
	}
}
