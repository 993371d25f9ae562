package engineapi

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/slipwaybuild/slipway/session/peer"
)

func (a *api) buildRoutes() []route {
	return []route{
		{http.MethodPost, "/build", a.build},
		{http.MethodPost, "/build/cancel", a.cancelBuild},
		{http.MethodPost, "/build/prune", a.pruneBuildCache},
	}
}

// build runs a build whose context comes by a session, in the body of this request or of another one, or from a URL.
func (a *api) build(w http.ResponseWriter, r *http.Request) error {
	p, err := parseBuild(r)
	if err != nil {
		return err
	}
	if id, ok := strings.CutPrefix(p.id, uploadPrefix); ok {
		return a.takeUpload(w, r, id)
	}
	classic := p.classic && !a.Settings().EngineForClassic
	if classic {
		if err := p.classicNetwork(); err != nil {
			return err
		}
	}
	ctx, done := a.jobs.start(r.Context(), p.id)
	defer done()
	if !p.takesBody(r) {
		r.Body = http.NoBody
	}
	out := newStream(w, r)
	body, err := a.contextBody(ctx, w, r, p)
	if classic && errors.Is(err, errNoContext) {
		body, err = nil, nil // it is the builder who misses the Dockerfile
	}
	if err != nil {
		return err
	}
	if body != nil {
		defer body.Stop()
	}
	brought, url := a.bring(ctx, body, parseAccounts(r.Header.Get("X-Registry-Config")))
	if brought != nil {
		defer brought.close()
	}
	if url == "" && p.remote != contextOfSession {
		url = p.remote
	}
	req, err := p.request(a.Engine.Worker(), url)
	if err != nil {
		return err
	}
	req.Owner = peer.FromContext(ctx)
	if p.session != "" {
		req.Sessions = append(req.Sessions, p.session)
	}
	if brought != nil {
		req.Sessions = append(req.Sessions, brought.id)
	}
	if classic {
		return a.runClassic(ctx, out, p, req)
	}
	return a.runBuild(ctx, out, p, req)
}

// errNoContext is a request that says nothing of where its context is.
var errNoContext = invalid("no build context: send a tar in the body, a session, or the URL of a context")

// takesBody tells whether the request's body is the build's context.
func (p *buildParams) takesBody(r *http.Request) bool {
	return p.remote == "" && r.Body != nil && r.Body != http.NoBody
}

// contextBody is the body that holds the context: this request's, or that of the request that uploads it. nil for none.
func (a *api) contextBody(ctx context.Context, w http.ResponseWriter, r *http.Request, p *buildParams) (*requestBody, error) {
	switch {
	case p.remote == contextOfUpload:
		if p.id == "" {
			return nil, invalid("an upload is asked for without a build ID")
		}
		return a.uploads.take(ctx, p.id)
	case p.takesBody(r):
		return newRequestBody(w, r), nil
	case p.remote == "" && p.session == "":
		return nil, errNoContext
	case p.remote == contextOfSession && p.session == "":
		return nil, invalid("a context from the client's session is asked for, and no session is named")
	}
	return nil, nil
}

// takeUpload parks a request that brings the context of a build until the build has read it. Its answer is empty.
func (a *api) takeUpload(w http.ResponseWriter, r *http.Request, id string) error {
	if id == "" {
		return invalid("an upload without a build ID")
	}
	ctx, done := a.jobs.start(r.Context(), id)
	defer done()
	body := newRequestBody(w, r)
	// After this nobody reads the request any more, as its end demands.
	defer body.Stop()
	if err := a.uploads.give(ctx, id, body); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// cancelBuild ends what a client runs under an id of its choice. One that nobody runs, or that has ended, is no error. With ref, which
// docker's clients do not send, it ends the build that progress and history know under that name.
func (a *api) cancelBuild(w http.ResponseWriter, r *http.Request) error {
	if ref := r.URL.Query().Get("ref"); ref != "" {
		if err := a.Engine.Cancel(peer.FromContext(r.Context()), ref); err != nil {
			return err
		}
		w.WriteHeader(http.StatusOK)
		return nil
	}
	id := r.URL.Query().Get("id")
	if id == "" {
		return invalid("build ID not provided")
	}
	a.jobs.cancel(r.Context(), id)
	w.WriteHeader(http.StatusOK)
	return nil
}
