package http

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/slipwaybuild/slipway/session/secrets"
	"github.com/slipwaybuild/slipway/session/upload"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/source"
)

// Secrets that authorise requests to a host without being named by the request.
const (
	headerSecretPrefix = "HTTP_AUTH_HEADER_"
	tokenSecretPrefix  = "HTTP_AUTH_TOKEN_"
)

// getURL brings the file over the network, or from memory.
func (p *pinned) getURL(ctx context.Context, env source.Env) error {
	if p.q.checksum != "" {
		if ok, err := p.recall(ctx, p.q.sumKey()); ok || err != nil {
			return err
		}
	}
	a, err := source.Answer(ctx, env.Answers, "http "+p.q.key(), func(ctx context.Context) (*answered, error) {
		if err := p.askServer(ctx, env); err != nil {
			return nil, err
		}
		return &answered{p.ref.Clone(), p.file}, nil
	})
	if err != nil {
		return err
	}
	if p.ref == nil {
		p.ref, p.file = a.ref.Clone(), a.file
	}
	if env.Answers == nil {
		return a.Close()
	}
	return nil
}

// answered is what a URL gave a build, which holds its layer until it ends.
type answered struct {
	ref  *layers.Ref
	file file
}

// Close gives the layer back.
func (a *answered) Close() error { return a.ref.Release() }

// askServer brings the file, if what is remembered does not hold any more.
func (p *pinned) askServer(ctx context.Context, env source.Env) error {
	last, ref, err := p.remembered(ctx, p.q.key())
	if err != nil {
		return err
	}
	resp, same, err := p.ask(ctx, env, last)
	if err != nil {
		return errors.Join(err, release(ref))
	}
	defer func() { _ = resp.Body.Close() }() // its end was seen, or does not matter
	if same {
		p.ref, p.file = ref, last.file()
		return p.s.mem.put(last, p.q.key())
	}
	if err := release(ref); err != nil {
		return err
	}
	if resp.StatusCode < 200 || resp.StatusCode >= 300 {
		return fmt.Errorf("get %s: invalid response status %d", p.q.shown, resp.StatusCode)
	}
	if p.q.checksum == "" {
		p.file.Filename = p.q.name(resp.Header)
	}
	r := &response{ETag: resp.Header.Get("ETag"), LastModified: resp.Header.Get("Last-Modified"), Filename: p.file.Filename}
	r.Strong = strong(resp.Header)
	if err := p.store(ctx, env, resp.Body, resp.ContentLength, r); err != nil {
		return err
	}
	keys := []string{p.q.key()}
	if p.q.checksum != "" {
		keys = append(keys, p.q.sumKey())
	}
	return p.s.mem.put(r, keys...)
}

func release(r *layers.Ref) error {
	if r == nil {
		return nil
	}
	return r.Release()
}

// recall takes the layer remembered under key, if it is there.
func (p *pinned) recall(ctx context.Context, key string) (bool, error) {
	r, ref, err := p.remembered(ctx, key)
	if r == nil || err != nil {
		return false, err
	}
	p.ref, p.file = ref, r.file()
	p.fileOfChecksum()
	return true, p.s.mem.put(r, key)
}

// fileOfChecksum makes what is said of the file what was said of it before it was fetched.
func (p *pinned) fileOfChecksum() {
	if p.q.checksum != "" {
		p.file = file{Digest: p.q.checksum, Filename: p.q.staticName()}
	}
}

// remembered looks a response up and takes hold of its layer; nil if either is gone.
func (p *pinned) remembered(ctx context.Context, key string) (*response, *layers.Ref, error) {
	r, err := p.s.mem.get(key)
	if r == nil || err != nil {
		if err != nil {
			p.s.o.Logger.Warn("memory of http source", "error", err)
		}
		return nil, nil, nil
	}
	ref, err := p.s.o.Store.Pin(ctx, r.Layer)
	if errors.Is(err, layers.ErrNotFound) {
		return nil, nil, nil
	}
	return r, ref, err
}

// ask sends the request, conditional on what is remembered, and tells whether that holds. Some servers answer a conditional GET
// with everything, so a tag is asked for first. Where a HEAD is not answered the GET has to be conditional.
func (p *pinned) ask(ctx context.Context, env source.Env, last *response) (_ *http.Response, same bool, _ error) {
	if last != nil && last.ETag != "" {
		resp, err := p.send(ctx, env, http.MethodHead, last)
		if err == nil && unchanged(resp, last) {
			return resp, true, nil
		}
		if err == nil {
			_ = resp.Body.Close() // a HEAD has none
			if resp.StatusCode < 300 {
				last = nil // it has changed
			}
		}
	}
	resp, err := p.send(ctx, env, http.MethodGet, last)
	if err != nil {
		return nil, false, err
	}
	return resp, last != nil && unchanged(resp, last), nil
}

func (p *pinned) send(ctx context.Context, env source.Env, method string, last *response) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, p.q.url.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", p.q.shown, bare(err))
	}
	req.Header = p.q.header.Clone()
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", p.s.o.UserAgent)
	}
	if err := p.authorise(ctx, env, req); err != nil {
		return nil, err
	}
	if method == http.MethodHead {
		// As the transport asks with GET: the tag may be that of the encoding.
		req.Header.Set("Accept-Encoding", "gzip")
	}
	switch {
	case last == nil:
	case last.ETag != "":
		req.Header.Set("If-None-Match", last.ETag)
	case last.Strong:
		req.Header.Set("If-Modified-Since", last.LastModified)
	}
	resp, err := p.s.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", p.q.shown, bare(err))
	}
	return resp, nil
}

// bare takes the URL, and with it any credentials, off an error of net/url or net/http.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// authorise sets the Authorization header from the secret that the request names, or from one kept for the host.
func (p *pinned) authorise(ctx context.Context, env source.Env, req *http.Request) error {
	g := env.Sessions()
	if name := p.q.authSecret; name != "" {
		v, err := secrets.Get(ctx, g, name)
		if err != nil {
			return fmt.Errorf("get %s: secret for authorization: %w", p.q.shown, err)
		}
		req.Header.Set("Authorization", strings.TrimSpace(string(v)))
		return nil
	}
	if len(g.IDs()) == 0 {
		return nil
	}
	host := p.q.url.Hostname()
	for _, s := range []struct{ name, scheme string }{{headerSecretPrefix + host, ""}, {tokenSecretPrefix + host, "Bearer "}} {
		if v, err := secrets.Get(ctx, g, s.name); err == nil {
			req.Header.Set("Authorization", s.scheme+strings.TrimSpace(string(v)))
			return nil
		} else if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// unchanged tells whether a response says that what is remembered holds. Some servers send everything again to If-None-Match,
// with the same tag.
func unchanged(resp *http.Response, last *response) bool {
	tag := strings.TrimPrefix(resp.Header.Get("ETag"), "W/")
	same := tag == strings.TrimPrefix(last.ETag, "W/")
	switch resp.StatusCode {
	case http.StatusNotModified:
		return tag == "" || same
	case http.StatusOK:
		return tag != "" && same
	}
	return false
}

// strong tells whether Last-Modified can be relied on: it counts in seconds, so a file that was changed just before may have
// been changed again (RFC 9110, 8.8.2.2).
func strong(h http.Header) bool {
	modified, date := parseTime(h.Get("Last-Modified")), parseTime(h.Get("Date"))
	return !modified.IsZero() && date.Sub(modified) >= time.Minute
}

func parseTime(s string) time.Time {
	t, err := http.ParseTime(s)
	if err != nil {
		return time.Time{}
	}
	return t
}

// getUpload brings what a client uploads. It can be had once, so what came is remembered as long as someone holds it.
func (p *pinned) getUpload(ctx context.Context, env source.Env) error {
	g := env.Sessions()
	if r := p.s.uploads.get(p.q.key(), g.Keys()); r != nil {
		ref, err := p.s.o.Store.Pin(ctx, r.Layer)
		if err == nil {
			p.ref, p.file = ref, r.file()
			return nil
		}
		if !errors.Is(err, layers.ErrNotFound) {
			return err
		}
	}
	body, err := upload.Pull(ctx, g, p.q.url.Host, p.q.url.Path)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }() // its end was seen
	r := &response{Filename: p.q.staticName()}
	if err := p.store(ctx, env, body, -1, r); err != nil {
		return err
	}
	p.s.uploads.put(p.q.key(), g.Keys(), r)
	return nil
}
