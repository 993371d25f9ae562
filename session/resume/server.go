package resume

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/slipwaybuild/slipway/session/internal/prefixconn"
	"github.com/slipwaybuild/slipway/session/peer"
)

// Usual limits.
const (
	UsualGrace = 2 * time.Minute
	// usualPerClient times two windows is the most that one client can make the daemon hold, two gigabytes if it tries to. Its paths do not
	// count here: they are connections like others.
	usualPerClient = 512
	// unheardGrace is how long a Conn is kept of which nothing was heard after the handshake. Most likely the answer was lost, and nobody
	// knows the token.
	unheardGrace = 20 * time.Second
)

// ServerOptions go with NewServer.
type ServerOptions struct {
	// Accept takes over each new Conn, and closes it. It returns at once.
	Accept func(net.Conn)
	// Grace is how long a Conn may be without a path; 0 is UsualGrace.
	Grace time.Duration
	// PerClient is how many Conns one identity may have; 0 is 512. Who asks for more is told to do without.
	PerClient int
	// Logger hears of what comes and goes. nil is silence.
	Logger *slog.Logger
}

// Server is the daemon's half: it accepts paths and keeps the Conns above them. It is closed by whoever made it.
type Server struct {
	o      ServerOptions
	timing timing

	mu     sync.Mutex // guards what follows
	conns  map[string]*kept
	per    map[peer.Identity]int
	closed bool

	work sync.WaitGroup // one for every kept Conn
}

// kept is a Conn in the daemon's care.
type kept struct {
	*Conn
	token string

	attach sync.Mutex    // of who replaces the path; guards served
	served chan struct{} // closed when the last path is not served any more

	mu      sync.Mutex // guards what follows
	current net.Conn   // nil while parked
	parked  *time.Timer
	orphan  bool // the client's process has ended
}

// NewServer returns a server without Conns.
func NewServer(o ServerOptions) *Server {
	if o.Grace <= 0 {
		o.Grace = UsualGrace
	}
	if o.PerClient <= 0 {
		o.PerClient = usualPerClient
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Server{o: o, timing: usualTiming(), conns: map[string]*kept{}, per: map[peer.Identity]int{}}
}

// RequestError is a request that is refused. Nothing was written; the HTTP door answers with Status and Message.
type RequestError struct {
	Status  int
	Message string
}

func (e *RequestError) Error() string { return e.Message }

func refuse(status int, format string, args ...any) error {
	return &RequestError{Status: status, Message: fmt.Sprintf(format, args...)}
}

// HandleHTTP makes the request's connection a path, of a new Conn or of one that the request names. It returns at once. After an error the
// caller answers.
func (s *Server) HandleHTTP(w http.ResponseWriter, r *http.Request) error {
	if got := r.Header.Get("Upgrade"); got != Protocol {
		return refuse(http.StatusBadRequest, "protocol %q not supported, only %s is", got, Protocol)
	}
	told, err := readHello(r.Header)
	if err != nil {
		return refuse(http.StatusBadRequest, "%v", err)
	}
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		return refuse(http.StatusBadRequest, "%s connection cannot be upgraded to %s", r.Proto, Protocol)
	}
	if !s.enter() {
		return refuse(http.StatusServiceUnavailable, "the daemon is ending")
	}
	defer s.work.Done()
	who := peer.FromContext(r.Context())
	if told.token != "" {
		return s.resume(hijacker, told, who)
	}
	return s.create(hijacker, told, who)
}

func (s *Server) create(h http.Hijacker, told hello, who peer.Identity) error {
	if err := s.reserve(who); err != nil {
		return err
	}
	conn, buf, err := h.Hijack()
	if err != nil {
		s.release(who)
		return fmt.Errorf("take over the connection: %w", err)
	}
	k := &kept{Conn: newConn(s.timing, conn, who), token: newToken(), served: make(chan struct{})}
	close(k.served)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.release(who)
		return conn.Close()
	}
	s.conns[k.token] = k
	s.work.Go(func() {
		<-k.ended
		s.forget(k)
	})
	s.mu.Unlock()
	s.watch(k, conn, told.process)
	s.attach(k, whole(conn, buf), told)
	s.o.Accept(k.Conn)
	return nil
}

func (s *Server) resume(h http.Hijacker, told hello, who peer.Identity) error {
	s.mu.Lock()
	k := s.conns[told.token]
	s.mu.Unlock()
	switch {
	case k == nil || isClosed(k.ended):
		return refuse(http.StatusGone, "the connection is over: its client was away for too long, or the daemon has been started anew")
	case k.who != who:
		// As if it did not exist: a token says nothing to who is not its owner.
		s.o.Logger.Warn("connection not resumed: its client was another", "is", who, "was", k.who)
		return refuse(http.StatusGone, "the connection is over: its client was away for too long, or the daemon has been started anew")
	}
	conn, buf, err := h.Hijack()
	if err != nil {
		return fmt.Errorf("take over the connection: %w", err)
	}
	s.attach(k, whole(conn, buf), told)
	return nil
}

// attach makes conn the path. The client knows better than we do whether the former one is of any use.
func (s *Server) attach(k *kept, conn net.Conn, told hello) {
	k.attach.Lock()
	defer k.attach.Unlock()
	k.detach()
	<-k.served
	err := answer(conn, hello{token: k.token, received: k.received(), grace: s.o.Grace, process: peer.Self()})
	if err != nil {
		_ = conn.Close()
		s.park(k) // the client comes again; nothing more can be wrong than that it does not
		return
	}
	k.mu.Lock()
	if k.parked != nil {
		k.parked.Stop()
	}
	k.current, k.served = conn, make(chan struct{})
	served := k.served
	k.mu.Unlock()
	s.work.Go(func() {
		defer close(served)
		err := k.serve(conn, newReader(conn, s.timing), told.received)
		k.mu.Lock()
		k.current = nil
		k.mu.Unlock()
		if errors.Is(err, errProtocol) {
			s.o.Logger.Warn("connection lost for good", "error", err)
			k.end(err)
		}
		s.park(k)
	})
}

// detach hangs up on the present path.
func (k *kept) detach() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current != nil {
		_ = k.current.Close()
	}
}

// park starts the grace time, or ends the Conn if nobody can come back.
func (s *Server) park(k *kept) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.orphan:
		s.work.Go(func() { k.end(errOrphan) })
	case k.parked == nil:
		k.parked = time.AfterFunc(s.grace(k), func() { s.giveUp(k) })
	default:
		k.parked.Reset(s.grace(k))
	}
}

func (s *Server) grace(k *kept) time.Duration {
	if !k.heard() {
		return min(unheardGrace, s.o.Grace)
	}
	return s.o.Grace
}

var errOrphan = errors.New("the client's process has ended")

// watch notes the end of the client's process, if that is known to be at the other end of the path itself. What it wrote before is still
// read: the Conn ends with its path.
func (s *Server) watch(k *kept, path net.Conn, claimed string) {
	program := peer.Direct(path, claimed)
	if program == nil {
		return
	}
	s.work.Go(func() {
		<-k.ended
		_ = program.Close() // was only watched
	})
	s.work.Go(func() {
		if !program.Wait() {
			return
		}
		k.mu.Lock()
		k.orphan = true
		parked := k.current == nil
		k.mu.Unlock()
		if parked {
			k.end(errOrphan)
		}
	})
}

// giveUp ends a Conn that is still parked.
func (s *Server) giveUp(k *kept) {
	k.mu.Lock()
	attached := k.current != nil
	k.mu.Unlock()
	if !attached {
		k.end(fmt.Errorf("the client lost its connection and did not come back within %s", s.o.Grace))
	}
}

// enter makes Close wait until work.Done, unless it has begun.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.work.Add(1)
	}
	return !s.closed
}

// reserve counts a Conn.
func (s *Server) reserve(who peer.Identity) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.per[who] >= s.o.PerClient {
		return refuse(http.StatusTooManyRequests, "more than %d connections that can be resumed", s.o.PerClient)
	}
	s.per[who]++
	return nil
}

func (s *Server) release(who peer.Identity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.per[who]--; s.per[who] == 0 {
		delete(s.per, who)
	}
}

func (s *Server) forget(k *kept) {
	k.mu.Lock()
	if k.parked != nil {
		k.parked.Stop()
	}
	k.mu.Unlock()
	s.mu.Lock()
	delete(s.conns, k.token)
	s.mu.Unlock()
	s.release(k.who)
}

// Close ends all Conns, telling those clients that can be told, and waits until that is done, which takes two seconds at most. New ones
// are refused.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	for _, k := range s.conns {
		_ = k.Close() // has no error to tell
	}
	s.mu.Unlock()
	s.work.Wait()
	return nil
}

// whole puts what the HTTP server has read ahead back in front of the connection.
func whole(conn net.Conn, buf *bufio.ReadWriter) net.Conn {
	if w, err := prefixconn.Unbuffer(conn, buf.Reader); err == nil { // reads from memory
		return w
	}
	return conn
}
