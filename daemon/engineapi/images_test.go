package engineapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/daemon/imageservice"
	"github.com/slipwaybuild/slipway/solver/source/registry"
)

// scripted answers what a test wants.
type scripted struct {
	fakeImages
	list   func(imageservice.ListOptions) ([]imageservice.Summary, error)
	pull   func(reference.Named, imageservice.Progress) error
	save   func(func() io.Writer) error
	remove func() ([]imageservice.Removed, error)
}

func (s *scripted) List(_ context.Context, o imageservice.ListOptions) ([]imageservice.Summary, error) {
	return s.list(o)
}

func (s *scripted) Pull(_ context.Context, n reference.Named, _ *ocispecs.Platform, _ imageservice.Sessions, p imageservice.Progress) error {
	return s.pull(n, p)
}

func (s *scripted) PullAll(_ context.Context, n reference.Named, _ *ocispecs.Platform, _ imageservice.Sessions, p imageservice.Progress) error {
	return s.pull(n, p)
}

func (s *scripted) Save(_ context.Context, _ []string, open func() io.Writer) error {
	return s.save(open)
}

func (s *scripted) Remove(context.Context, string, imageservice.RemoveOptions) ([]imageservice.Removed, error) {
	return s.remove()
}

func TestListOfImages(t *testing.T) {
	t.Parallel()
	id := digest.FromString("x")
	var asked imageservice.ListOptions
	s, _ := newTestAPI(t, func(o *Options) {
		o.Images = &scripted{list: func(o imageservice.ListOptions) ([]imageservice.Summary, error) {
			asked = o
			return []imageservice.Summary{{ID: id, Size: 7}, {ID: id, Tags: []string{"a:1"}, Created: time.Unix(5, 0)}}, nil
		}}
	})
	code, body, _ := get(t, s.URL+`/v1.41/images/json?filters={"dangling":["false"],"label":["k=v"],"until":["2020-01-02T03:04:05Z"],"reference":["x*"]}`)
	want := `[{"Id":"` + id.String() + `","ParentId":"","RepoTags":["\u003cnone\u003e:\u003cnone\u003e"],"RepoDigests":["\u003cnone\u003e@\u003cnone\u003e"],` +
		`"Created":0,"Size":7,"VirtualSize":7,"SharedSize":-1,"Labels":null,"Containers":-1},` +
		`{"Id":"` + id.String() + `","ParentId":"","RepoTags":["a:1"],"RepoDigests":null,"Created":5,"Size":0,"VirtualSize":0,"SharedSize":-1,"Labels":null,"Containers":-1}]`
	if code != 200 || strings.TrimSpace(body) != want {
		t.Errorf("%d %s\nwant %s", code, body, want)
	}
	if asked.Dangling == nil || *asked.Dangling || asked.Labels[0] != "k=v" || asked.References[0] != "x*" || asked.Until.Year() != 2020 {
		t.Errorf("%+v", asked)
	}
	for _, f := range []string{`{"nosuch":["1"]}`, `{"until":["soon"]}`, `{"dangling":["maybe"]}`, `{"before":["a","b"]}`, `{`} {
		if code, body, _ := get(t, s.URL+"/images/json?filters="+f); code != 400 {
			t.Errorf("%s: %d %s", f, code, body)
		}
	}
}

func TestPulledNames(t *testing.T) {
	t.Parallel()
	d := digest.FromString("x").String()
	for query, want := range map[string]string{
		"fromImage=busybox&tag=latest":                 "docker.io/library/busybox:latest",
		"fromImage=busybox:1&tag=":                     "docker.io/library/busybox:1",
		"fromImage=busybox":                            "docker.io/library/busybox",
		"fromImage=h.example:5000/a/b&tag=" + d:        "h.example:5000/a/b@" + d,
		"fromImage=docker.io/library/busybox:1&tag=22": "docker.io/library/busybox:22",
	} {
		got := ""
		s, _ := newTestAPI(t, func(o *Options) {
			o.Images = &scripted{pull: func(n reference.Named, _ imageservice.Progress) error { got = n.String(); return nil }}
		})
		if code, body := postAs(t, s.URL+"/images/create?"+query, ""); code != 200 || got != want {
			t.Errorf("%s: %d %s, pulled %s", query, code, body, got)
		}
	}
	s, _ := newTestAPI(t, func(o *Options) { o.Images = &scripted{} })
	for query, want := range map[string]int{
		"": 400, "fromImage=Bad/REF": 400, "fromImage=x&tag=no%20tag": 400, "fromImage=x&platform=a/b/c/d/e": 400, "fromSrc=http://x/y": 501,
		"fromSrc=-&changes=RUN%20x": 400, "fromSrc=-&changes=NOSUCH": 400, "fromSrc=-&repo=Bad/REF": 400,
	} {
		if code, body := postAs(t, s.URL+"/images/create?"+query, ""); code != want {
			t.Errorf("%s: %d %s, want %d", query, code, body, want)
		}
	}
}

func postAs(t *testing.T, url, auth string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Registry-Auth", auth)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestPullTellsAndFails(t *testing.T) {
	t.Parallel()
	fail := error(nil)
	s, _ := newTestAPI(t, func(o *Options) {
		o.Images = &scripted{pull: func(_ reference.Named, p imageservice.Progress) error {
			if fail == nil {
				p(imageservice.Update{ID: "abc", Status: "Downloading", Layer: true, Current: 1, Total: 2})
			}
			return fail
		}}
	})
	if code, body := postAs(t, s.URL+"/images/create?fromImage=x&tag=1", "e30="); code != 200 ||
		body != `{"status":"Downloading","progressDetail":{"current":1,"total":2},"id":"abc"}`+"\r\n" {
		t.Errorf("%d %q", code, body)
	}
	fail = registry.ErrUnauthorized
	if code, body := postAs(t, s.URL+"/images/create?fromImage=x&tag=1", ""); code != 404 || !strings.Contains(body, "pull access denied for x,") {
		t.Errorf("%d %q", code, body)
	}
	if code, body := postAs(t, s.URL+"/images/create?fromImage=x&tag=1", "c2VjcmV0"); code != 400 || strings.Contains(body, "secret") {
		t.Errorf("%d %q", code, body)
	}
}

// An archive that ends early must not look like one that is whole.
func TestBrokenSaveIsNoticed(t *testing.T) {
	t.Parallel()
	s, _ := newTestAPI(t, func(o *Options) {
		o.Images = &scripted{save: func(open func() io.Writer) error {
			_, err := open().Write([]byte(strings.Repeat("x", 100_000)))
			return errors.Join(err, errors.New("the disk is broken"))
		}}
	})
	res, err := http.Get(s.URL + "/images/get?names=a")
	if err != nil {
		return // noticed at once
	}
	defer func() { _ = res.Body.Close() }()
	if b, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("%d bytes and no error", len(b))
	}
}

func TestImageNamesMayHaveSlashes(t *testing.T) {
	t.Parallel()
	s, _ := newTestAPI(t)
	for path, want := range map[string]int{"/containers/a/b:1/json": 404, "/volumes/a/b:1": 404, "/networks/a/b": 404, "/images/search?term=x": 501} {
		if code, body, _ := get(t, s.URL+"/v1.41"+path); code != want {
			t.Errorf("%s: %d %s, want %d", path, code, body, want)
		}
	}
}

func FuzzAccount(f *testing.F) {
	for _, seed := range []string{"", "e30=", "bnVsbA==", "eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InAifQ==", "x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if c, err := parseAccount(header); err != nil && c.Username+c.Password != "" {
			t.Errorf("an account in spite of %v", err)
		}
	})
}

func FuzzChange(f *testing.F) {
	for _, seed := range []string{`CMD ["x"]`, "ENV a=b c=d", "EXPOSE 80 81/udp", "LABEL a=b", "VOLUME /x", "USER u", "WORKDIR /", "RUN x", "ENTRYPOINT x", "ENV", "<<"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var c ocispecs.ImageConfig
		_ = applyChange(&c, text) // must return
	})
}
