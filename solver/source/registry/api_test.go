package registry_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/slipwaybuild/slipway/session/sessiontest"
	"github.com/slipwaybuild/slipway/solver/source/registry"
	"github.com/slipwaybuild/slipway/solver/source/registry/registrytest"
)

func TestCheckAsksTheRegistry(t *testing.T) {
	for _, kind := range []registrytest.Auth{registrytest.None, registrytest.Basic, registrytest.Bearer} {
		s := registrytest.New(t, registrytest.Options{Auth: kind, Accounts: accounts})
		good := sessiontest.Pair(t, &registrytest.Client{User: "ann", Password: accounts["ann"], HTTP: s.Client()})
		bad := sessiontest.Pair(t, &registrytest.Client{User: "ann", Password: "wrong", HTTP: s.Client()})
		reg := open(t, nil)
		if err := reg.Resolver(as(good)).Check(t.Context(), s.Host); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		for _, o := range []registry.ResolverOptions{as(bad), {}} {
			err := reg.Resolver(o).Check(t.Context(), s.Host)
			if want := kind != registrytest.None; errors.Is(err, registry.ErrUnauthorized) != want {
				// A token server may well give a token for nothing to nobody.
				if !(kind == registrytest.Bearer && o.Sessions == nil && err == nil) {
					t.Errorf("%s: %v", kind, err)
				}
			}
		}
	}
}

func TestTagsOfManyPages(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{Auth: registrytest.Bearer, Accounts: accounts})
	g := sessiontest.Pair(t, &registrytest.Client{User: "ann", Password: accounts["ann"], HTTP: s.Client()})
	r := open(t, nil).Resolver(as(g))
	publish(t, r, s.Host+"/team/app:1", 10)
	publish(t, r, s.Host+"/team/app:2", 10)
	if tags, err := r.Tags(t.Context(), s.Host+"/team/app"); err != nil || !slices.Equal(tags, []string{"1", "2"}) {
		t.Errorf("%v %v", tags, err)
	}
	s.Fault(func(w http.ResponseWriter, req *http.Request) bool {
		if req.URL.Path != "/v2/team/app/tags/list" || req.Header.Get("Authorization") == "" {
			return false
		}
		n := len(req.URL.Query().Get("last"))
		if n < 3 {
			// Only the query of it is to be followed.
			w.Header().Set("Link", fmt.Sprintf(`<http://elsewhere.invalid/x?last=%s>; rel="next"`, "aaa"[:n+1]))
		}
		_, _ = fmt.Fprintf(w, `{"name":"team/app","tags":["t%d"]}`, n)
		return true
	})
	if tags, err := r.Tags(t.Context(), s.Host+"/team/app"); err != nil || !slices.Equal(tags, []string{"t0", "t1", "t2", "t3"}) {
		t.Errorf("%v %v", tags, err)
	}
	if _, err := r.Tags(t.Context(), s.Host+"/team/none"); err == nil {
		t.Error("there are tags of nothing")
	}
}

func TestQuestionsLeaveCredentialsBehindOnRedirects(t *testing.T) {
	got := make(chan string, 10)
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header.Get("Authorization")
		_, _ = w.Write([]byte(`{"tags":[]}`))
	}))
	defer thief.Close()
	s := registrytest.New(t, registrytest.Options{Auth: registrytest.Basic, Accounts: accounts})
	s.Fault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "" {
			return false
		}
		http.Redirect(w, r, thief.URL+"/x", http.StatusTemporaryRedirect)
		return true
	})
	g := sessiontest.Pair(t, &registrytest.Client{User: "ann", Password: accounts["ann"], HTTP: s.Client()})
	r := open(t, nil).Resolver(as(g))
	if _, err := r.Tags(t.Context(), s.Host+"/team/app"); err != nil {
		t.Error(err)
	}
	if a := <-got; a != "" {
		t.Errorf("another host was shown %q", a)
	}
}
