package session

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/opentracing/opentracing-go"

	"github.com/slipwaybuild/slipway/session/peer"
)

// ManagerOptions configure a Manager. The zero value is usable.
type ManagerOptions struct {
	// Wait bounds waiting for a session that has not arrived, 10s by default. A build request and its session come over two
	// connections, in either order.
	Wait time.Duration
	// Grace bounds waiting for a session that was here and has gone, in case its client reconnects; 1s by default.
	Grace time.Duration
	// Health says how clients are watched.
	Health Health
	// Logger hears of sessions coming and going. nil is silence.
	Logger *slog.Logger
	// Tracer makes a span of each call to a client. nil makes none.
	Tracer opentracing.Tracer
}

// Manager holds the daemon's ends of all sessions. Its methods may be called concurrently.
type Manager struct {
	o ManagerOptions

	mu       sync.Mutex // guards what follows
	live     map[key]*remote
	reserved map[key]struct{}  // in the middle of their handshake
	gone     map[key]time.Time // those that ended, and when; bounded by maxGone
	changed  chan struct{}     // closed and replaced when a session comes or goes
	closed   bool
	closing  chan struct{}  // closed by Close
	active   sync.WaitGroup // one for every HandleConn
}

// key names a session. Two clients may use the same id, by chance or by malice, and never meet.
type key struct {
	owner peer.Identity
	id    string
}

// maxGone bounds how many ended sessions are remembered; forgetting one only makes a wait for it longer.
const maxGone = 4096

// takeover is how long a newcomer with the id of a live session waits for that one to end. A client that reconnects may be
// faster than the news that its former connection has closed.
const takeover = 250 * time.Millisecond

// NewManager returns a Manager without sessions. The caller closes it.
func NewManager(o ManagerOptions) *Manager {
	if o.Wait <= 0 {
		o.Wait = 10 * time.Second
	}
	if o.Grace <= 0 {
		o.Grace = time.Second
	}
	o.Health = o.Health.withDefaults()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Manager{
		o:        o,
		live:     map[key]*remote{},
		reserved: map[key]struct{}{},
		gone:     map[key]time.Time{},
		changed:  make(chan struct{}),
		closing:  make(chan struct{}),
	}
}

// HandleConn runs the session that a client serves on conn and returns when it is over: nil if the client left, otherwise the
// context's cause, ErrClosed, or why the client counts as lost. meta are the handshake headers in any case; bad ones, and the id of
// a session that is alive, are a [RequestError]. conn is owned by HandleConn and closed by it in every case.
//
// The session belongs to the client that ctx is of ([peer.FromContext]): only that client's builds can use it.
func (m *Manager) HandleConn(ctx context.Context, conn net.Conn, meta map[string][]string) error {
	h, err := m.admit(ctx, meta)
	if err != nil {
		_ = conn.Close() // refused; there is no session whose end could fail
		return err
	}
	keepTCPAlive(conn)
	return m.run(ctx, conn, h)
}

// admit checks the handshake and reserves the id. After success run must be called, which gives the reservation back.
func (m *Manager) admit(ctx context.Context, meta map[string][]string) (handshake, error) {
	h, err := parseHandshake(meta)
	if err != nil {
		return h, err
	}
	h.owner = peer.FromContext(ctx)
	ctx, cancel := context.WithTimeout(ctx, takeover)
	defer cancel()
	for {
		changed, err := m.reserve(h.key())
		if changed == nil {
			return h, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return h, refuse(ErrExists, "session %s already exists", h.id)
		}
	}
}

// reserve takes the name, or returns what to wait for if it is in use.
func (m *Manager) reserve(k key) (<-chan struct{}, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, ErrClosed
	}
	_, busy := m.reserved[k]
	if !busy {
		_, busy = m.live[k]
	}
	if busy {
		return m.changed, nil
	}
	m.reserved[k] = struct{}{}
	m.active.Add(1)
	return nil, nil
}

func (m *Manager) run(ctx context.Context, conn net.Conn, h handshake) error {
	defer m.active.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := make(chan struct{})
	defer close(stop)
	go func() { // Close ends the handshake too
		select {
		case <-m.closing:
			cancel(ErrClosed)
		case <-stop:
		}
	}()

	r := newRemote(h, conn)
	if err := r.connect(ctx, m.o); err != nil {
		m.release(h.key())
		if ctx.Err() != nil {
			return fmt.Errorf("session %s: %w", h.id, context.Cause(ctx))
		}
		return err
	}
	m.publish(r)
	m.o.Logger.Debug("session opened", "session", r.id, "name", r.name)

	verdict := make(chan error, 1)
	go func() { verdict <- monitor(ctx, r, m.o.Health.asked(h.health)) }()
	err := m.watch(ctx, r, verdict)
	cause := err
	if cause == nil {
		cause = r.brokenBy()
	}
	m.remove(r, cause)
	cancel(nil)
	r.hangUp()
	m.o.Logger.Debug("session closed", "session", r.id, "cause", cause)
	return err
}

// watch waits for the end of the session, and for the end of its monitor.
func (m *Manager) watch(ctx context.Context, r *remote, verdict <-chan error) error {
	var lost error
	select {
	case lost = <-verdict:
		if lost == nil { // nothing to monitor, or ctx ended
			select {
			case <-r.conn.broken:
			case <-ctx.Done():
			}
		}
	case <-r.conn.broken:
	}
	switch {
	case lost != nil:
		return fmt.Errorf("session %s: %w", r.id, lost)
	case ctx.Err() != nil:
		return fmt.Errorf("session %s: %w", r.id, context.Cause(ctx))
	}
	return nil
}

// publish turns the reservation into a session that can be found.
func (m *Manager) publish(r *remote) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.reserved, r.key())
	delete(m.gone, r.key())
	m.live[r.key()] = r
	m.announce()
}

// release gives a reservation back without a session.
func (m *Manager) release(k key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.reserved, k)
	m.announce()
}

// remove ends the session and takes it out of the table in one step, so that nobody finds one that is over.
func (m *Manager) remove(r *remote, cause error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.end(cause)
	delete(m.live, r.key())
	if len(m.gone) >= maxGone {
		clear(m.gone)
	}
	m.gone[r.key()] = time.Now()
	m.announce()
}

// announce wakes all who wait. m.mu is held.
func (m *Manager) announce() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// Get returns the session with the id of a client that nothing is known of; see [Group.Get] for others. One that has not arrived yet is waited for, as long as the options and ctx allow; then the
// error wraps ErrNoSession, or ctx's cause. The id may carry a prefix that ends in a colon, which is ignored.
func (m *Manager) Get(ctx context.Context, id string) (Caller, error) {
	return m.get(ctx, []key{{peer.Unknown, bareID(id)}})
}

// get returns the first session there is.
func (m *Manager) get(ctx context.Context, keys []key) (Caller, error) {
	w := m.waiter(keys)
	defer w.stop()
	r, err := w.next(ctx)
	switch {
	case err != nil:
		return nil, fmt.Errorf("waiting for session %s: %w", keys[0].id, err)
	case r == nil:
		return nil, fmt.Errorf("%w: %s", ErrNoSession, w.missing())
	}
	return r, nil
}

// Group is GroupOf for a client that nothing is known of, such as the daemon itself.
func (m *Manager) Group(ids ...string) *Group { return m.GroupOf(peer.Unknown, ids...) }

// GroupOf returns the group of a client's sessions with these ids, in order of preference; none needs to be there yet. Ids may carry a prefix
// as in Get; empty and repeated ones are dropped. A session of another client's is not found, whatever its id.
func (m *Manager) GroupOf(owner peer.Identity, ids ...string) *Group {
	return newGroup(m, owner, ids)
}

// Close ends all sessions, refuses new ones and waits until every HandleConn has returned.
func (m *Manager) Close() error {
	m.mu.Lock()
	if !m.closed {
		m.closed = true
		close(m.closing)
		m.announce()
	}
	m.mu.Unlock()
	m.active.Wait()
	return nil
}

// bareID strips a prefix "name:".
func bareID(id string) string {
	if _, bare, ok := strings.Cut(id, ":"); ok && bare != "" {
		return bare
	}
	return id
}
