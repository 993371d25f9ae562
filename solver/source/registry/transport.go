package registry

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// maxTokenResponse bounds what a token server may answer, in bytes.
const maxTokenResponse = 1 << 20

// newTransport has at most connections to one host; 0 is no limit.
func newTransport(t *tls.Config, connections int) *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       t,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 60 * time.Second,
		ExpectContinueTimeout: 5 * time.Second,
		MaxIdleConnsPerHost:   8,
		MaxConnsPerHost:       connections,
		IdleConnTimeout:       30 * time.Second,
		ForceAttemptHTTP2:     true,
	}
}

// split sends requests for host one way and those for all others, where redirects lead, another.
type split struct {
	host         string
	own, foreign http.RoundTripper
}

func (s *split) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host == s.host {
		return s.own.RoundTrip(req)
	}
	return s.foreign.RoundTrip(req)
}

// negotiator finds out whether host speaks https or plain http, for hosts where either is all right. It asks for https first and
// remembers the answer until the host cannot be reached.
type negotiator struct {
	host string
	next http.RoundTripper

	mu    sync.Mutex
	plain bool
}

func (n *negotiator) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host != n.host || req.URL.Scheme != "https" {
		return n.next.RoundTrip(req)
	}
	if n.isPlain() {
		resp, err := n.next.RoundTrip(plainHTTP(req))
		if err != nil {
			n.setPlain(false)
		}
		return resp, err
	}
	resp, err := n.next.RoundTrip(req)
	if err == nil || !speaksHTTP(err, n.host) {
		return resp, err
	}
	again := plainHTTP(req)
	if req.Body != nil && req.Body != http.NoBody {
		if req.GetBody == nil {
			return nil, err
		}
		body, bodyErr := req.GetBody()
		if bodyErr != nil {
			return nil, bodyErr
		}
		again.Body = body
	}
	resp, err = n.next.RoundTrip(again)
	if err == nil {
		n.setPlain(true)
	}
	return resp, err
}

func (n *negotiator) isPlain() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.plain
}

func (n *negotiator) setPlain(b bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.plain = b
}

func plainHTTP(req *http.Request) *http.Request {
	out := req.Clone(req.Context())
	out.URL.Scheme = "http"
	return out
}

// speaksHTTP tells whether an attempt at https failed in a way that makes http worth trying.
func speaksHTTP(err error, host string) bool {
	var notTLS tls.RecordHeaderError
	if errors.As(err, &notTLS) {
		return string(notTLS.RecordHeader[:]) == "HTTP/"
	}
	if errors.Is(err, http.ErrSchemeMismatch) {
		return true
	}
	// Without a port, http is another port.
	_, _, portErr := net.SplitHostPort(host)
	return portErr != nil && errors.Is(err, syscall.ECONNREFUSED)
}

// limitBody bounds response bodies.
type limitBody struct {
	next  http.RoundTripper
	limit int64
}

func (l limitBody) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, l.limit), resp.Body}
	return resp, nil
}

// checkTokenRedirect keeps credentials from following a redirect. Go's client drops the Authorization header itself when the
// host changes, but sends a form again.
func checkTokenRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= 5 {
		return errors.New("too many redirects")
	}
	if first := via[0]; first.Method != http.MethodGet || first.URL.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("refused to follow a redirect to %s with credentials", req.URL.Host)
	}
	return nil
}
