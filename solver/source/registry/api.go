package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/reference"
)

// What of a registry's API containerd's resolver does not ask.

const (
	// maxAsked is how often one question is asked: without credentials, with them, and with a fresh token.
	maxAsked = 3
	// maxRedirects is how often one answer may lead elsewhere.
	maxRedirects = 10
	// maxTagPages and maxTagPage bound a list of tags: pages, and the bytes of one.
	maxTagPages = 1000
	maxTagPage  = 4 << 20
)

// Check asks a registry whether it takes the sessions' credentials. host is as in references, "docker.io" for Docker Hub.
func (r *Resolver) Check(ctx context.Context, host string) error {
	resp, err := r.ask(r.quiet(ctx), host, "/")
	if err != nil {
		return wrap("log in to", host, err)
	}
	return resp.Body.Close()
}

// Tags lists the tags of the repository of ref, in the registry's order.
func (r *Resolver) Tags(ctx context.Context, ref string) ([]string, error) {
	spec, err := reference.Parse(ref)
	if err != nil {
		return nil, wrap("list tags of", ref, err)
	}
	repository := strings.TrimPrefix(spec.Locator, spec.Hostname()+"/")
	ctx = docker.WithScope(r.quiet(ctx), "repository:"+repository+":pull")
	var all []string
	next := "/" + repository + "/tags/list?n=1000"
	for range maxTagPages {
		page, following, err := r.tagPage(ctx, spec.Hostname(), next)
		if err != nil {
			return nil, wrap("list tags of", ref, err)
		}
		all = append(all, page...)
		if following == "" {
			return all, nil
		}
		next = "/" + repository + "/tags/list?" + following
	}
	return nil, wrap("list tags of", ref, errors.New("the list does not end"))
}

// tagPage reads one page, and the query for the next; "" if there is none.
func (r *Resolver) tagPage(ctx context.Context, host, path string) (tags []string, next string, err error) {
	resp, err := r.ask(ctx, host, path)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	var page struct{ Tags []string }
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxTagPage)).Decode(&page); err != nil {
		return nil, "", fmt.Errorf("read the registry's answer: %w", err)
	}
	return page.Tags, nextPage(resp.Header.Get("Link")), nil
}

// nextPage is the query of the link to the next page; "" if there is none. The rest of the link is not taken: it is where we are.
func nextPage(link string) string {
	to, rel, _ := strings.Cut(link, ";")
	u, err := url.Parse(strings.Trim(strings.TrimSpace(to), "<>"))
	if err != nil || !strings.Contains(rel, "next") {
		return ""
	}
	return u.RawQuery
}

// ask sends GET /v2 and path to the host itself, not to its mirrors, with the credentials that it wants. The caller closes the body
// of the answer, which is a success.
func (r *Resolver) ask(ctx context.Context, host, path string) (*http.Response, error) {
	hosts, err := r.reg.registryHosts(host, r.o, func(e *endpoint) docker.Authorizer { return newAuthorizer(r, e) })
	if err != nil {
		return nil, err
	}
	h := hosts[len(hosts)-1]
	client := *h.Client
	// Elsewhere credentials are worth stealing.
	client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if len(via) >= maxRedirects {
			return errors.New("too many redirects")
		}
		return h.Authorizer.Authorize(ctx, req)
	}
	var answers []*http.Response
	for range maxAsked {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.Scheme+"://"+h.Host+"/v2"+path, nil)
		if err != nil {
			return nil, err
		}
		req.Header = r.reg.header()
		if err := h.Authorizer.Authorize(ctx, req); err != nil {
			return nil, err
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusOK {
			return resp, nil
		}
		if resp.StatusCode != http.StatusUnauthorized {
			return nil, newStatusError(resp)
		}
		_ = resp.Body.Close() // it was refused
		if err := h.Authorizer.AddResponses(ctx, append(answers, resp)); err != nil {
			return nil, err
		}
		answers = append(answers, resp)
	}
	return nil, &deniedError{host: h.Host, why: "it refused the credentials"}
}
