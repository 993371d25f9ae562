package samehost

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/peer"
	"golang.org/x/sys/unix"
)

// Host is the daemon's half. Its methods are safe for concurrent use.
type Host struct {
	log *slog.Logger
	own identity

	mu      sync.Mutex // guards what follows
	awaited map[nonce]chan arrival
}

// arrival is a descriptor that a client passed. Whoever gets it closes conn and file.
type arrival struct {
	conn  net.Conn
	file  *os.File // nil for kindHave
	from  identity
	kind  kind
	flags byte
}

func (a *arrival) close() error {
	err := a.conn.Close()
	if a.file != nil {
		err = errors.Join(err, a.file.Close())
	}
	return err
}

// NewHost returns the daemon's half. A nil logger is silence.
func NewHost(log *slog.Logger) (*Host, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	own, err := self()
	if err != nil {
		return nil, fmt.Errorf("same host: %w", err)
	}
	return &Host{log: log, own: own, awaited: map[nonce]chan arrival{}}, nil
}

// ServeHTTP takes a descriptor: it is the handler of POST [Path]. Requests that bring none are answered with an error.
func (h *Host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != Protocol {
		http.Error(w, "no upgrade to "+Protocol+" in request", http.StatusBadRequest)
		return
	}
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		http.Error(w, "connection cannot be upgraded", http.StatusBadRequest)
		return
	}
	conn, buf, err := hijacker.Hijack()
	if err != nil {
		http.Error(w, "connection cannot be upgraded", http.StatusBadRequest)
		return
	}
	u := unixConn(conn)
	if u == nil || buf.Reader.Buffered() > 0 {
		_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		_ = conn.Close()
		return
	}
	_ = conn.SetDeadline(time.Now().Add(handshakeTime))
	a, waiting, err := h.receive(u)
	if err != nil {
		h.log.Debug("descriptor not taken", "error", err)
		_ = conn.Close()
		return
	}
	_ = conn.SetDeadline(time.Time{})
	a.conn = conn
	// The one who waits has room for it and leaves only after taking its nonce back.
	waiting <- a
}

// unixConn finds the unix connection inside wrappers; nil if there is none.
func unixConn(c net.Conn) *net.UnixConn {
	for {
		switch x := c.(type) {
		case *net.UnixConn:
			return x
		case *tls.Conn:
			return nil // whoever is at the other end of the socket need not be the client
		case interface{ NetConn() net.Conn }:
			c = x.NetConn()
		default:
			return nil
		}
	}
}

// receive reads the message, and answers it.
func (h *Host) receive(u *net.UnixConn) (a arrival, waiting chan<- arrival, err error) {
	defer func() {
		if err != nil && a.file != nil {
			err = errors.Join(err, a.file.Close())
		}
	}()
	// Who it is counts as of when it connected. It is looked up before anything of it is believed.
	if a.from, err = peerOf(u); err != nil {
		return a, nil, err
	}
	if _, err := io.WriteString(u, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+Protocol+"\r\n\r\n"); err != nil {
		return a, nil, err
	}
	var msg [messageSize]byte
	if a.file, err = receiveFile(u, msg[:]); err != nil {
		return a, nil, err
	}
	a.kind, a.flags = kind(msg[nonceSize]), msg[nonceSize+1]
	if err := a.check(); err != nil {
		return a, nil, err
	}
	c := h.take(nonce(msg[:nonceSize]))
	if c == nil {
		_, _ = u.Write([]byte{answerRefused})
		return a, nil, errors.New("nobody waits for it")
	}
	if _, err := u.Write([]byte{answerTaken}); err != nil {
		return a, nil, err
	}
	return a, c, nil
}

// receiveFile reads a message that comes with at most one descriptor. All others that came are closed.
func receiveFile(u *net.UnixConn, msg []byte) (*os.File, error) {
	oob := make([]byte, unix.CmsgSpace(4)) // of more than one the kernel keeps what does not fit
	n, oobn, flags, _, err := u.ReadMsgUnix(msg, oob)
	if err != nil {
		return nil, err
	}
	files, err := filesIn(oob[:oobn])
	switch {
	case err != nil:
	case flags&unix.MSG_CTRUNC != 0 || len(files) > 1:
		err = errors.New("more descriptors than one")
	case n < len(msg):
		_, err = io.ReadFull(u, msg[n:])
	}
	if err != nil {
		for _, f := range files {
			_ = f.Close()
		}
		return nil, err
	}
	if len(files) == 0 {
		return nil, nil
	}
	return files[0], nil
}

func filesIn(oob []byte) ([]*os.File, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue // something else, such as credentials
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}

// check makes sure that the descriptor is what the message says.
func (a *arrival) check() error {
	if a.kind == kindHave {
		if a.file != nil {
			return errors.New("a descriptor of nothing")
		}
		return nil
	}
	if a.file == nil {
		return errors.New("no descriptor came")
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(a.file.Fd()), &st); err != nil {
		return err
	}
	flags, err := unix.FcntlInt(a.file.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	dir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	switch {
	case flags&unix.O_PATH != 0:
		return errors.New("the descriptor is only a place")
	case (a.kind == kindDir || a.kind == kindTree) && dir:
	case a.kind == kindStream && st.Mode&unix.S_IFMT == unix.S_IFREG && flags&unix.O_ACCMODE != unix.O_RDONLY:
	default:
		return fmt.Errorf("a descriptor of mode %o is not of kind %q", st.Mode, byte(a.kind))
	}
	return nil
}

// belongs makes sure that who passed the descriptor is who opened the session, where that is known.
func (a *arrival) belongs(c session.Caller) error {
	o, ok := c.(session.Owned)
	if !ok || o.Owner() == peer.Unknown {
		return nil
	}
	if got := peer.Identity("unix:" + strconv.FormatUint(uint64(a.from.uid), 10)); got != o.Owner() {
		return fmt.Errorf("passed by %q, and the session is of %q", got, o.Owner())
	}
	return nil
}

// take finds who waits for a nonce. Each is good once.
func (h *Host) take(n nonce) chan<- arrival {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.awaited[n]
	delete(h.awaited, n)
	return c
}

// ask has the client pass a descriptor. The client's call goes on until answered says how it ended; ctx ends it.
func (h *Host) ask(ctx context.Context, c session.Caller, a ask) (_ *arrival, answered <-chan error, err error) {
	if h == nil || !c.Supports(fullMethod) {
		return nil, nil, ErrUnavailable
	}
	n := newNonce()
	a.Nonce = n[:]
	waiting := make(chan arrival, 1)
	h.mu.Lock()
	h.awaited[n] = waiting
	h.mu.Unlock()
	done := make(chan error, 1)
	go func() { done <- call(ctx, c.Conn(), a) }()
	late := time.NewTimer(askTime)
	defer late.Stop()
	select {
	case got := <-waiting:
		if err := got.belongs(c); err != nil {
			return nil, nil, errors.Join(unavailable(err), got.close())
		}
		return &got, done, nil
	case err = <-done:
	case <-late.C:
		err = fmt.Errorf("nothing was passed within %s", askTime)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if h.take(n) == nil {
		// It was taken: the arrival is there, or will be in a moment.
		got := <-waiting
		if err == nil {
			err = got.belongs(c)
		}
		if err == nil {
			done <- nil
			return &got, done, nil
		}
		return nil, nil, errors.Join(unavailable(err), got.close())
	}
	if err == nil {
		err = errors.New("the client passed nothing")
	}
	return nil, nil, unavailable(err)
}

func unavailable(err error) error { return fmt.Errorf("%w: %w", ErrUnavailable, err) }

// askTime bounds how long a client may take to pass a descriptor.
const askTime = 10 * time.Second

// askDir has the client pass a directory, and waits until it has done so.
func (h *Host) askDir(ctx context.Context, c session.Caller, a ask, k kind) (*arrival, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	got, answered, err := h.ask(ctx, c, a)
	if err != nil {
		return nil, err
	}
	<-answered //nolint:errcheck // an error after the descriptor was passed changes nothing
	_ = got.conn.Close()
	if got.kind != k {
		err := fmt.Errorf("%w: the client passed something else", ErrUnavailable)
		if got.file != nil {
			err = errors.Join(err, got.file.Close())
		}
		return nil, err
	}
	return got, nil
}

// OpenDir asks the client of a session for a directory that it offers, to be read with its identity. The caller closes it. The error
// is [ErrUnavailable] if the session has to serve.
func (h *Host) OpenDir(ctx context.Context, c session.Caller, name string) (*Dir, error) {
	a, err := h.askDir(ctx, c, ask{Dir: &name}, kindDir)
	if err != nil {
		return nil, fmt.Errorf("directory %q: %w", name, err)
	}
	d, err := newDir(h.own, a)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("directory %q: %w", name, unavailable(err)), a.file.Close())
	}
	return d, nil
}

// OpenTree asks the client of a session for the directory of an export, to be written with its identity. The caller closes it. The
// error is [ErrUnavailable] if the session has to serve.
func (h *Host) OpenTree(ctx context.Context, c session.Caller, exporter int) (*Tree, error) {
	a, err := h.askDir(ctx, c, ask{Output: &exporter}, kindTree)
	if err != nil {
		return nil, fmt.Errorf("output %d: %w", exporter, err)
	}
	t, err := newThreads(h.own, a.from)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("output %d: %w", exporter, unavailable(err)), a.file.Close())
	}
	return &Tree{file: a.file, threads: t, keepOwner: a.flags&flagKeepOwner != 0, delete: a.flags&flagDelete != 0}, nil
}

// OpenStream asks the client of a session for the file of an export, to be written with its identity. about is what the exporter says of
// it. The caller calls Close, or Abort. The error is [ErrUnavailable] if the session has to serve.
func (h *Host) OpenStream(ctx context.Context, c session.Caller, exporter int, about map[string]string) (*Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	s, err := h.openStream(ctx, c, ask{Output: &exporter, About: about})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("output %d: %w", exporter, err)
	}
	s.cancel = cancel
	return s, nil
}

func (h *Host) openStream(ctx context.Context, c session.Caller, a ask) (*Stream, error) {
	got, answered, err := h.ask(ctx, c, a)
	if err != nil {
		return nil, err
	}
	s := &Stream{ctx: ctx, conn: got.conn, file: got.file, answered: answered}
	switch got.kind {
	case kindHave:
		return s, nil
	case kindStream:
		if s.threads, err = newThreads(h.own, got.from); err == nil {
			return s, nil
		}
	default:
		err = errors.New("the client passed something else")
	}
	return nil, errors.Join(unavailable(err), got.close())
}
