package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"
)

const (
	// maxAttempts is how often a request is sent to a host that nobody can stand in for.
	maxAttempts = 4
	// maxRetryAfter is the longest wait that a host may ask for.
	maxRetryAfter = 30 * time.Second
)

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// retrier sends requests again that failed for a reason that may pass. When it gives up it returns an error, also for an answer,
// of a type that containerd's resolver does not retry in its turn.
type retrier struct {
	next     http.RoundTripper
	attempts int
	backoff  time.Duration
	log      *slog.Logger
}

func (r *retrier) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Header.Get("Accept-Encoding") != "" {
		// A range of an encoded body cannot be resumed, and what registries serve is compressed already.
		req = req.Clone(req.Context())
		req.Header.Set("Accept-Encoding", "identity")
	}
	ctx := req.Context()
	for attempt := 1; ; attempt++ {
		resp, err := r.next.RoundTrip(req)
		if err == nil && !passing(resp.StatusCode) {
			return resp, nil
		}
		pause := r.backoff<<(attempt-1) + rand.N(r.backoff/2+1)
		again := attempt < r.attempts && repeatable(req)
		if err != nil {
			if ctx.Err() != nil || !isConnError(err) {
				return nil, err
			}
			err = &UnreachableError{Host: req.URL.Host, Err: plainCause(err)}
			again = again && mayPass(err)
		} else {
			if after, ok := retryAfter(resp.Header); ok {
				pause = after
				again = again && after <= maxRetryAfter
			}
			err = newStatusError(resp)
		}
		if !again {
			return nil, err
		}
		r.log.DebugContext(ctx, "registry request will be sent again", "host", req.URL.Host, "attempt", attempt, "wait", pause, "error", err)
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// passing tells whether an answer says that the host is unwell, rather than that the request is wrong.
func passing(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// repeatable tells whether a request may be sent twice. Starting an upload twice leaves one unused, which registries expect.
func repeatable(req *http.Request) bool {
	if req.Body != nil && req.Body != http.NoBody {
		return false
	}
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost:
		return true
	}
	return false
}

// errHungUp stands for an end of the connection before the answer. It is not io.EOF, which containerd's resolver retries.
var errHungUp = errors.New("connection closed before an answer came")

func plainCause(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) {
		return errHungUp
	}
	var op *net.OpError
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Errorf("dial tcp: lookup %s: no such host", dns.Name) // people look for these words, and not for the name server's
	case errors.As(err, &op) && op.Op == "dial" && op.Timeout():
		return errTimeout
	}
	var sys syscall.Errno
	if errors.As(err, &sys) {
		return sys
	}
	return err
}

var errTimeout = errors.New("connection timed out")

// isConnError tells whether err is of the connection, as opposed to TLS refusing the peer.
func isConnError(err error) bool {
	var n net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || isReset(err) || errors.As(err, &n)
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNREFUSED)
}

// mayPass tells whether a lost connection is worth another attempt soon. An unknown name, a route that does not exist and a host
// that let the dial time out are not.
func mayPass(err error) bool {
	if errors.Is(err, errHungUp) || isReset(err) {
		return true
	}
	var dns *net.DNSError
	var n net.Error
	switch {
	case errors.As(err, &dns):
		return dns.IsTemporary
	case errors.Is(err, errTimeout):
		return false
	case errors.As(err, &n):
		return n.Timeout()
	}
	return false
}

func retryAfter(h http.Header) (time.Duration, bool) {
	s := h.Get("Retry-After")
	if n, err := strconv.Atoi(s); err == nil && n >= 0 {
		return time.Duration(min(n, 1<<20)) * time.Second, true
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(0, time.Until(t)), true
	}
	return 0, false
}
