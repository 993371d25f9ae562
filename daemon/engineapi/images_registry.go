package engineapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/daemon/imageservice"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/peer"
	sourceregistry "github.com/slipwaybuild/slipway/solver/source/registry"
)

// maxLogin bounds the body of a login, in bytes.
const maxLogin = 1 << 20

// showProgress sends updates as docker's clients know them.
func showProgress(out *stream) imageservice.Progress {
	return func(u imageservice.Update) {
		_ = out.Send(updateMessage(u)) // the work does not depend on being watched
	}
}

func updateMessage(u imageservice.Update) message {
	m := message{ID: u.ID, Status: u.Status}
	if u.Layer {
		m.Detail = &progressDetail{Current: u.Current, Total: u.Total}
	}
	return m
}

// parseAccount reads X-Registry-Auth: base64 of one account; the zero account if there is none.
func parseAccount(header string) (c registry.AuthConfig, err error) {
	if header == "" {
		return c, nil
	}
	b, err := decodeBase64(header)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		return c, invalid("X-Registry-Auth is no account") // its text is nobody's to read
	}
	return normalise(c), nil
}

// lend offers an account for one registry while a request runs, and only to what that request does. The session must be closed.
func (a *api) lend(ctx context.Context, c registry.AuthConfig, host string) (imageservice.Sessions, func()) {
	if c == (registry.AuthConfig{}) {
		return nil, func() {}
	}
	s := a.openSession(ctx, &accountService{accounts: accounts{hostOf(host): c}})
	owner := peer.FromContext(ctx)
	return func() *session.Group { return a.Sessions.GroupOf(owner, s.id) }, s.close
}

// asClient gives what a request's account may see of the registry of a name.
func (a *api) asClient(r *http.Request, named reference.Named) (imageservice.Sessions, func(), error) {
	c, err := parseAccount(r.Header.Get("X-Registry-Auth"))
	if err != nil {
		return nil, nil, err
	}
	sessions, done := a.lend(r.Context(), c, reference.Domain(named))
	return sessions, done, nil
}

// createImage pulls an image, or makes one of a root file system in the body.
func (a *api) createImage(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	var platform *ocispecs.Platform
	if text := q.Get("platform"); text != "" {
		p, err := platforms.Parse(text)
		if err != nil {
			return invalid("platform: %w", err)
		}
		platform = &p
	}
	if q.Get("fromImage") == "" {
		return a.importImage(w, r, platform)
	}
	named, err := pulledName(q.Get("fromImage"), q.Get("tag"))
	if err != nil {
		return err
	}
	sessions, done, err := a.asClient(r, named)
	if err != nil {
		return err
	}
	defer done()
	out := newStream(w, r)
	pull := a.Images.Pull
	if reference.IsNameOnly(named) {
		pull = a.Images.PullAll
	}
	return out.End(pullFailure(named, pull(r.Context(), named, platform, sessions, showProgress(out))))
}

// pullFailure answers as docker's daemon does where an account is wanted: clients take status 401 for a question to their user, and
// some wait for an answer that nobody is there to give.
func pullFailure(named reference.Named, err error) error {
	if !errors.Is(err, sourceregistry.ErrUnauthorized) {
		return err
	}
	return notFound("pull access denied for %s, repository does not exist or may require 'docker login': %w", reference.FamiliarName(named), err)
}

// pulledName is the name to pull. tag may be a digest; without any, all tags are meant.
func pulledName(image, tag string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(strings.TrimSuffix(image, ":"))
	if err != nil {
		return nil, invalid("%w", err)
	}
	if tag == "" {
		return named, nil
	}
	named = reference.TrimNamed(named)
	if d, err := digest.Parse(tag); err == nil {
		named, err = reference.WithDigest(named, d)
		return named, err
	}
	if named, err = reference.WithTag(named, tag); err != nil {
		return nil, invalid("%w", err)
	}
	return named, nil
}

// pushImage pushes one tag of a repository, or all of them.
func (a *api) pushImage(w http.ResponseWriter, r *http.Request) error {
	named, err := pulledName(r.PathValue("name"), r.URL.Query().Get("tag"))
	if err != nil {
		return err
	}
	sessions, done, err := a.asClient(r, named)
	if err != nil {
		return err
	}
	defer done()
	out := newStream(w, r)
	err = a.Images.Push(r.Context(), named, sessions, showProgress(out), func(p imageservice.Pushed) {
		_ = out.Send(message{Detail: &progressDetail{}, Aux: map[string]any{"Tag": p.Tag, "Digest": p.Digest, "Size": p.Size}})
	})
	return out.End(err)
}

func (a *api) distribution(w http.ResponseWriter, r *http.Request) error {
	named, err := reference.ParseNormalizedNamed(r.PathValue("name"))
	if err != nil {
		return invalid("%w", err)
	}
	sessions, done, err := a.asClient(r, named)
	if err != nil {
		return err
	}
	defer done()
	d, list, err := a.Images.Remote(r.Context(), named, sessions)
	if err != nil {
		return err
	}
	return answer(w, map[string]any{
		"Descriptor": ocispecs.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}, "Platforms": list,
	})
}

// login checks an account. It is the client who keeps it.
func (a *api) login(w http.ResponseWriter, r *http.Request) error {
	var c registry.AuthConfig
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxLogin)).Decode(&c); err != nil {
		return invalid("the body is no account")
	}
	host := hostOf(c.ServerAddress)
	if host == "" || host == hubHost {
		host = "docker.io"
	}
	sessions, done := a.lend(r.Context(), normalise(c), host)
	defer done()
	if err := a.Images.Login(r.Context(), host, sessions); err != nil {
		return err
	}
	return answer(w, map[string]string{"Status": "Login Succeeded", "IdentityToken": ""})
}

func (a *api) searchImages(http.ResponseWriter, *http.Request) error {
	return unserved("this is a build engine: it does not search registries")
}
