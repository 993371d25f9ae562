package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// defaultExpiry is the lifetime of a token whose server gives none, in seconds.
	defaultExpiry = 60
	// maxTokenAnswer bounds the answer of a token server, in bytes.
	maxTokenAnswer = 1 << 20
	// attempts is how often a token server is asked that does not answer, or has a fault of its own.
	attempts = 3
	// clientID names us to token servers when the daemon does not.
	clientID = "slipway"
)

// tokenClient talks to registries' token servers.
type tokenClient struct {
	http *http.Client

	mu         sync.Mutex // guards what follows
	challenges map[string]challenge
	fetched    map[string]bool // hosts for which a token was fetched
}

func newTokenClient(c *http.Client) *tokenClient {
	client := http.Client{Transport: ownTransport()}
	if c != nil {
		client = *c
	}
	client.CheckRedirect = sameServer
	return &tokenClient{http: &client, challenges: map[string]challenge{}, fetched: map[string]bool{}}
}

func ownTransport() http.RoundTripper {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  30 * time.Second,
		MaxResponseHeaderBytes: 1 << 20,
		DisableKeepAlives:      true, // a handful of requests per build; nothing to keep, and nothing to close
	}
}

// sameServer keeps a redirect from carrying a password to another server.
func sameServer(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	switch {
	case len(via) >= 10:
		return errors.New("stopped after 10 redirects")
	case req.URL.Host != first.Host || req.URL.Scheme != first.Scheme:
		return fmt.Errorf("%w, %s", errElsewhere, req.URL.Host)
	}
	return nil
}

// fetch gets a token. Errors carry gRPC codes and no secret.
func (c *tokenClient) fetch(ctx context.Context, acc account, req TokenRequest) (Token, error) {
	realm, err := url.Parse(req.Realm)
	if err != nil || realm.Scheme != "https" && realm.Scheme != "http" || realm.Host == "" || realm.User != nil {
		return Token{}, status.Errorf(codes.InvalidArgument, "token for %s: %q is not the URL of a token server", req.Host, req.Realm)
	}
	if acc.secret != "" && !c.trusts(ctx, req.Host, realm) {
		return Token{}, status.Errorf(codes.PermissionDenied, "token for %s: the registry does not name %s as its token server, so it is not shown the password", req.Host, realm.Host)
	}
	t, err := c.exchange(ctx, acc, req, realm)
	if err != nil {
		text := fmt.Sprintf("token for %s from %s: %v", req.Host, realm.Host, err)
		if acc.secret != "" {
			text = strings.ReplaceAll(text, acc.secret, "***")
		}
		return Token{}, status.Error(codeOf(err), text)
	}
	c.mu.Lock()
	c.fetched[req.Host] = true
	c.mu.Unlock()
	return t, nil
}

// exchange tries OAuth's POST first, because a password belongs into a body, and for an identity token there is no other way. Many
// servers know only GET, and say so in various ways.
func (c *tokenClient) exchange(ctx context.Context, acc account, req TokenRequest, realm *url.URL) (Token, error) {
	if acc.secret == "" {
		return c.send(ctx, func() (*http.Request, error) { return getToken(ctx, acc, req, realm) })
	}
	t, err := c.send(ctx, func() (*http.Request, error) { return postToken(ctx, acc, req, realm) })
	refusal := (*statusError)(nil)
	if acc.username == "" || !errors.As(err, &refusal) || !refusal.askOtherwise() {
		return t, err
	}
	return c.send(ctx, func() (*http.Request, error) { return getToken(ctx, acc, req, realm) })
}

func postToken(ctx context.Context, acc account, req TokenRequest, realm *url.URL) (*http.Request, error) {
	form := url.Values{"service": {req.Service}, "client_id": {clientID}}
	if req.ClientID != "" {
		form.Set("client_id", req.ClientID)
	}
	if len(req.Scopes) > 0 {
		form.Set("scope", strings.Join(req.Scopes, " "))
	}
	if acc.username == "" {
		form.Set("grant_type", "refresh_token")
		form.Set("refresh_token", acc.secret)
	} else {
		form.Set("grant_type", "password")
		form.Set("username", acc.username)
		form.Set("password", acc.secret)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	return r, nil
}

func getToken(ctx context.Context, acc account, req TokenRequest, realm *url.URL) (*http.Request, error) {
	u := *realm
	q := u.Query()
	if req.Service != "" {
		q.Set("service", req.Service)
	}
	for _, s := range req.Scopes {
		q.Add("scope", s)
	}
	u.RawQuery = q.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if acc.secret != "" {
		r.SetBasicAuth(acc.username, acc.secret)
	}
	return r, nil
}

// send does the request, again when that may help.
func (c *tokenClient) send(ctx context.Context, request func() (*http.Request, error)) (Token, error) {
	pause := 200 * time.Millisecond
	for attempt := 1; ; attempt++ {
		r, err := request()
		if err != nil {
			return Token{}, err
		}
		t, err := c.once(r)
		if err == nil || attempt == attempts || !mayPass(err) || ctx.Err() != nil {
			return t, err
		}
		select {
		case <-time.After(pause):
			pause *= 3
		case <-ctx.Done():
			return Token{}, context.Cause(ctx)
		}
	}
}

func (c *tokenClient) once(r *http.Request) (Token, error) {
	resp, err := c.http.Do(r)
	if err != nil {
		return Token{}, err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end, or not wanted
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer))
	if err != nil {
		return Token{}, err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return Token{}, &statusError{code: resp.StatusCode, status: resp.Status, said: reason(body)}
	}
	return parseToken(body)
}

func parseToken(body []byte) (Token, error) {
	var answer struct {
		Token       string    `json:"token"`
		AccessToken string    `json:"access_token"`
		ExpiresIn   int64     `json:"expires_in"`
		IssuedAt    time.Time `json:"issued_at"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return Token{}, fmt.Errorf("its answer: %w", jsonError(err))
	}
	t := Token{Value: answer.AccessToken, IssuedAt: answer.IssuedAt, ExpiresIn: defaultExpiry * time.Second}
	if t.Value == "" {
		t.Value = answer.Token
	}
	if t.Value == "" {
		return Token{}, errors.New("its answer has no token")
	}
	if s := answer.ExpiresIn; s > 0 && s < int64(100*365*24*time.Hour/time.Second) {
		t.ExpiresIn = time.Duration(s) * time.Second
	}
	return t, nil
}
