package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// challengeTime bounds asking a registry how it authenticates. It is short: without an answer there is a rule too.
const challengeTime = 5 * time.Second

// challenge is how a registry wants to be spoken to. The zero value: it did not say, or could not be asked.
type challenge struct {
	scheme string // "bearer" or "basic"
	realm  string // of bearer: the token server
}

// challenge asks the registry once and remembers what it said.
func (c *tokenClient) challenge(ctx context.Context, host string) challenge {
	if isHub(host) {
		return challenge{scheme: "bearer", realm: "https://auth.docker.io/token"}
	}
	c.mu.Lock()
	known, ok := c.challenges[host]
	c.mu.Unlock()
	if ok {
		return known
	}
	ctx, cancel := context.WithTimeout(ctx, challengeTime)
	defer cancel()
	ch, err := c.probe(ctx, "https", host)
	if errors.Is(err, http.ErrSchemeMismatch) {
		ch, err = c.probe(ctx, "http", host)
	}
	if err != nil {
		return challenge{} // not remembered: the next build may be on another network
	}
	c.mu.Lock()
	c.challenges[host] = ch
	c.mu.Unlock()
	return ch
}

func (c *tokenClient) probe(ctx context.Context, scheme, host string) (challenge, error) {
	if strings.ContainsAny(host, "/@?#\\ ") || host == "" {
		return challenge{}, fmt.Errorf("%q is not a registry host", host)
	}
	u := url.URL{Scheme: scheme, Host: host, Path: "/v2/"}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return challenge{}, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return challenge{}, err
	}
	defer func() { _ = resp.Body.Close() }() // only its headers are of interest
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
	if resp.StatusCode != http.StatusUnauthorized {
		return challenge{}, nil
	}
	return parseChallenges(resp.Header.Values("WWW-Authenticate")), nil
}

// parseChallenges finds the challenge that a daemon will take up: bearer, else basic.
func parseChallenges(headers []string) challenge {
	var found challenge
	for _, h := range headers {
		scheme, params, _ := strings.Cut(strings.TrimSpace(h), " ")
		switch {
		case strings.EqualFold(scheme, "bearer"):
			return challenge{scheme: "bearer", realm: parameter(params, "realm")}
		case strings.EqualFold(scheme, "basic"):
			found.scheme = "basic"
		}
	}
	return found
}

// parameter returns the value of name in a list like `realm="https://x/token",service="x"`.
func parameter(list, name string) string {
	for list != "" {
		key, rest, ok := strings.Cut(list, "=")
		if !ok {
			return ""
		}
		var value string
		if strings.HasPrefix(rest, `"`) {
			value, rest, _ = strings.Cut(rest[1:], `"`)
			_, list, _ = strings.Cut(rest, ",")
		} else {
			value, list, _ = strings.Cut(rest, ",")
		}
		if strings.EqualFold(strings.TrimSpace(key), name) {
			return value
		}
	}
	return ""
}

// usesTokens tells whether the host can do without the password; see the package comment.
func (c *tokenClient) usesTokens(ctx context.Context, host string) bool {
	switch c.challenge(ctx, host).scheme {
	case "bearer":
		return true
	case "basic":
		return false
	default:
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.fetched[host]
	}
}

// trusts tells whether the account of a host may be shown to the token server at realm: the registry names it, or cannot be asked.
func (c *tokenClient) trusts(ctx context.Context, host string, realm *url.URL) bool {
	ch := c.challenge(ctx, host)
	switch ch.scheme {
	case "bearer":
		named, err := url.Parse(ch.realm)
		return err == nil && named.Scheme == realm.Scheme && strings.EqualFold(named.Host, realm.Host)
	case "basic":
		return false // it has no token server
	default:
		return true
	}
}
