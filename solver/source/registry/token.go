package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	dockerauth "github.com/containerd/containerd/v2/core/remotes/docker/auth"
	remoteserrors "github.com/containerd/containerd/v2/core/remotes/errors"
	pb "github.com/moby/buildkit/session/auth"
)

const (
	// clientID is told to token servers.
	clientID = "slipway"
	// defaultLifetime is that of a token whose server does not say.
	defaultLifetime = time.Minute
	// maxTokens bounds the cache; past it, expired tokens are swept and, if need be, all others forgotten.
	maxTokens = 1024
)

// tokenKey says for what, and to whom, a token was given.
type tokenKey struct {
	host, realm, service, scope, identity string
}

type token struct {
	value   string
	expires time.Time
}

// tokenCache keeps tokens. Whoever wants one that is not there fetches it himself, with his own session, while others who want
// the same wait for the outcome and then, if it was a failure, try themselves.
type tokenCache struct {
	mu      sync.Mutex
	entries map[tokenKey]*tokenEntry
}

type tokenEntry struct {
	busy chan struct{} // holds one value while somebody fetches
	mu   sync.Mutex
	token
}

func newTokenCache() *tokenCache { return &tokenCache{entries: map[tokenKey]*tokenEntry{}} }

func (c *tokenCache) entry(k tokenKey) *tokenEntry {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.entries[k]; ok {
		return e
	}
	if len(c.entries) >= maxTokens {
		for k, e := range c.entries {
			if e.valid() == "" {
				delete(c.entries, k)
			}
		}
		if len(c.entries) >= maxTokens {
			clear(c.entries)
		}
	}
	e := &tokenEntry{busy: make(chan struct{}, 1)}
	c.entries[k] = e
	return e
}

func (e *tokenEntry) valid() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if time.Now().Before(e.expires) {
		return e.value
	}
	return ""
}

func (c *tokenCache) get(ctx context.Context, k tokenKey, fetch func(context.Context) (token, error)) (string, error) {
	e := c.entry(k)
	if v := e.valid(); v != "" {
		return v, nil
	}
	select {
	case e.busy <- struct{}{}:
		defer func() { <-e.busy }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if v := e.valid(); v != "" {
		return v, nil
	}
	t, err := fetch(ctx)
	if err != nil {
		return "", err
	}
	e.mu.Lock()
	e.token = t
	e.mu.Unlock()
	return t.value, nil
}

// drop forgets a token that was refused, unless it was replaced already. It tells whether the token should have been good.
func (c *tokenCache) drop(value string) (good bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.entries {
		e.mu.Lock()
		if e.value == value {
			good = good || time.Now().Before(e.expires)
			e.token = token{}
		}
		e.mu.Unlock()
	}
	return good
}

// fetchToken gets a token through the client, or, for a credential that the client told, from the token server.
func fetchToken(ctx context.Context, e *endpoint, k tokenKey, scopes []string, cred *credential) (token, error) {
	if cred.caller != nil {
		return clientToken(ctx, e.host, k, scopes, cred)
	}
	if u, err := url.Parse(k.realm); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return token{}, fmt.Errorf("registry %s names a token server that is no URL: %q", e.host, redact(k.realm))
	}
	o := dockerauth.TokenOptions{Realm: k.realm, Service: k.service, Scopes: scopes, Username: cred.user, Secret: cred.secret}
	t, err := serverToken(ctx, e.token, o)
	var s remoteserrors.ErrUnexpectedStatus
	if errors.As(err, &s) && (s.StatusCode == http.StatusUnauthorized || s.StatusCode == http.StatusForbidden) {
		why := "its token server answered " + s.Status
		if m := registryMessage(s.Body); m != "" {
			why += ": " + m
		}
		return token{}, &deniedError{host: e.host, why: why}
	}
	if err != nil {
		return token{}, fmt.Errorf("get a token for registry %s: %w", e.host, err)
	}
	return t, nil
}

func clientToken(ctx context.Context, host string, k tokenKey, scopes []string, cred *credential) (token, error) {
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	resp, err := pb.NewAuthClient(cred.caller.Conn()).FetchToken(ctx, &pb.FetchTokenRequest{
		ClientID: clientID, Host: host, Realm: k.realm, Service: k.service, Scopes: scopes,
	})
	if err != nil {
		if ctx.Err() != nil {
			return token{}, ctx.Err()
		}
		// A client does not say in a way to rely on whether it was refused or could not ask.
		return token{}, &deniedError{host: host, why: "the client got no token: " + redact(err.Error())}
	}
	var issued time.Time
	if resp.IssuedAt > 0 {
		issued = time.Unix(resp.IssuedAt, 0)
	}
	return newToken(resp.Token, resp.ExpiresIn, issued), nil
}

// serverToken asks by GET, which most servers know, and then by POST, which is the only way with an identity token.
func serverToken(ctx context.Context, client *http.Client, o dockerauth.TokenOptions) (token, error) {
	if o.Username != "" || o.Secret == "" {
		resp, err := dockerauth.FetchToken(ctx, client, nil, o)
		if err == nil {
			return newToken(resp.Token, int64(resp.ExpiresInSeconds), resp.IssuedAt), nil
		}
		var s remoteserrors.ErrUnexpectedStatus
		if o.Secret == "" || !errors.As(err, &s) || s.StatusCode != http.StatusNotFound &&
			s.StatusCode != http.StatusMethodNotAllowed && s.StatusCode != http.StatusUnauthorized {
			return token{}, err
		}
	}
	resp, err := dockerauth.FetchTokenWithOAuth(ctx, client, nil, clientID, o)
	if err != nil {
		return token{}, err
	}
	return newToken(resp.AccessToken, int64(resp.ExpiresInSeconds), resp.IssuedAt), nil
}

// newToken computes when a token should no longer be used: a little before it expires.
func newToken(value string, seconds int64, issued time.Time) token {
	now := time.Now()
	if issued.IsZero() || issued.After(now) {
		issued = now
	}
	life := defaultLifetime
	if seconds > 0 {
		life = time.Duration(min(seconds, 24*60*60)) * time.Second
	}
	return token{value: value, expires: issued.Add(life * 9 / 10)}
}
