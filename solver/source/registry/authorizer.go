package registry

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	dockerauth "github.com/containerd/containerd/v2/core/remotes/docker/auth"
	"github.com/containerd/errdefs"
)

// challenge is how a host wants to be asked. It is the same for everybody.
type challenge struct {
	basic          bool
	realm, service string
}

// authorizer puts the sessions' credentials on requests to one host. It lives as long as one operation on one repository.
type authorizer struct {
	r *Resolver
	e *endpoint

	mu     sync.Mutex // guards what follows
	refuse map[string]bool
	why    string            // of the last refusal
	from   map[string]string // which session an Authorization header is from
	scopes []string          // that the host asked for beyond those of the context
}

var _ docker.Authorizer = (*authorizer)(nil)

func newAuthorizer(r *Resolver, e *endpoint) *authorizer {
	return &authorizer{r: r, e: e, refuse: map[string]bool{}, from: map[string]string{}}
}

// Authorize does nothing until the host has asked for it once. From requests to other hosts, where redirects lead, it takes the
// credentials away: Go's client leaves them there when only the port differs.
func (a *authorizer) Authorize(ctx context.Context, req *http.Request) error {
	if !a.isMine(req.URL) {
		req.Header.Del("Authorization")
		return nil
	}
	c, ok := a.r.reg.challenge(a.e.host)
	if !ok {
		return nil
	}
	for {
		cred, err := a.r.credential(ctx, a.e.host, a.refused())
		if errors.Is(err, errNobody) {
			return a.denied()
		}
		if err != nil {
			return err
		}
		header, err := a.authorization(ctx, c, cred)
		if errors.Is(err, ErrUnauthorized) {
			if cred.session == "" {
				return err
			}
			a.reject(cred.session, err)
			continue
		}
		if err != nil {
			return err
		}
		a.mu.Lock()
		a.from[header] = cred.session
		a.mu.Unlock()
		req.Header.Set("Authorization", header)
		a.r.show(cred)
		return nil
	}
}

func (a *authorizer) authorization(ctx context.Context, c challenge, cred *credential) (string, error) {
	if c.basic {
		user, password, err := cred.basic(ctx, a.e.host)
		if err != nil {
			return "", fmt.Errorf("ask the client for its credentials for %s: %w", a.e.host, err)
		}
		if user == "" || password == "" {
			return "", &deniedError{host: a.e.host, why: "it wants a user name and a password, and the client has none"}
		}
		a.r.learned(a.e.host, password)
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)), nil
	}
	a.mu.Lock()
	scopes := mergeScopes(docker.GetTokenScopes(ctx, a.scopes))
	a.mu.Unlock()
	k := tokenKey{host: a.e.host, realm: c.realm, service: c.service, scope: strings.Join(scopes, " "), identity: cred.identity}
	t, err := a.r.reg.tokens.get(ctx, k, func(ctx context.Context) (token, error) {
		return fetchToken(ctx, a.e, k, scopes, cred)
	})
	if err != nil {
		return "", err
	}
	if a.r.o.Sessions != nil {
		a.r.o.Sessions().LearnedToken("token for "+a.e.host, []byte(t))
	}
	return "Bearer " + t, nil
}

// AddResponses learns how the host wants to be asked. A token that was refused is forgotten and fetched once more, as it may have
// expired in the middle of a pull; a credential that was refused is not used again.
func (a *authorizer) AddResponses(ctx context.Context, responses []*http.Response) error {
	last := responses[len(responses)-1]
	if !a.isMine(last.Request.URL) {
		return fmt.Errorf("authorize for another host: %w", errdefs.ErrNotImplemented)
	}
	c, scope, ok := parseChallenge(last.Header)
	if !ok {
		return fmt.Errorf("registry %s does not say how to authorize: %w", a.e.host, errdefs.ErrNotImplemented)
	}
	a.r.reg.setChallenge(a.e.host, c)
	a.mu.Lock()
	a.scopes = mergeScopes(append(a.scopes, strings.Fields(scope)...))
	a.mu.Unlock()

	sent := last.Request.Header.Get("Authorization")
	if sent == "" {
		return nil
	}
	if value, ok := strings.CutPrefix(sent, "Bearer "); ok && !a.r.reg.tokens.drop(value) {
		// It ended on the way, which says nothing of the credential. How often a request is sent again the resolver bounds.
		return nil
	}
	tries := 0
	for _, r := range responses {
		if r.Request.Header.Get("Authorization") != "" {
			tries++
		}
	}
	if tries == 1 && strings.HasPrefix(sent, "Bearer ") {
		return nil
	}
	a.mu.Lock()
	session := a.from[sent]
	a.mu.Unlock()
	err := &deniedError{host: a.e.host, why: "it refused the credentials"}
	if session == "" {
		return fmt.Errorf("%w: the repository does not exist, or it needs credentials", err)
	}
	a.reject(session, err)
	return nil
}

func (a *authorizer) reject(session string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refuse[session] = true
	var d *deniedError
	if errors.As(err, &d) {
		a.why = d.why
	}
}

func (a *authorizer) refused() map[string]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[string]bool, len(a.refuse))
	for s := range a.refuse {
		out[s] = true
	}
	return out
}

func (a *authorizer) denied() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return &deniedError{host: a.e.host, why: a.why}
}

// isMine tells whether a URL is of the host itself, as opposed to where it redirected to.
func (a *authorizer) isMine(u *url.URL) bool {
	return u.Host == a.e.host && (u.Scheme == a.e.scheme || a.e.either && u.Scheme == "http")
}

// parseChallenge takes the first challenge that we can meet: tokens before passwords.
func parseChallenge(h http.Header) (c challenge, scope string, ok bool) {
	for _, ch := range dockerauth.ParseAuthHeader(h) {
		switch ch.Scheme {
		case dockerauth.BearerAuth:
			if ch.Parameters["realm"] != "" {
				return challenge{realm: ch.Parameters["realm"], service: ch.Parameters["service"]}, ch.Parameters["scope"], true
			}
		case dockerauth.BasicAuth:
			return challenge{basic: true}, "", true
		}
	}
	return challenge{}, "", false
}

// mergeScopes puts scopes ("repository:name:pull,push") in one canonical form: one per resource, all sorted.
func mergeScopes(in []string) []string {
	actions := map[string][]string{}
	for _, s := range in {
		i := strings.LastIndexByte(s, ':')
		if i < 0 {
			continue
		}
		actions[s[:i]] = append(actions[s[:i]], strings.Split(s[i+1:], ",")...)
	}
	out := make([]string, 0, len(actions))
	for resource, a := range actions {
		slices.Sort(a)
		out = append(out, resource+":"+strings.Join(slices.Compact(a), ","))
	}
	slices.Sort(out)
	return out
}
