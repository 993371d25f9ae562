package dockerengine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	controlapi "github.com/moby/buildkit/api/services/control"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// connect serves a daemon that answers a ping by itself.
func connect(t *testing.T, api string, h http.HandlerFunc) (*Client, error) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/_ping" {
			w.Header().Set("Api-Version", api)
			w.Header().Set("Server", "Docker/1 (linux)")
			return
		}
		h(w, r)
	}))
	t.Cleanup(s.Close)
	c, err := Connect(t.Context(), func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", s.Listener.Addr().String())
	})
	if err == nil {
		t.Cleanup(c.Close)
	}
	return c, err
}

func none(*controlapi.StatusResponse) {}

func TestVersions(t *testing.T) {
	for api, want := range map[string]string{"1.41": "1.41", "1.99": newest.String(), "2.0": newest.String()} {
		c, err := connect(t, api, http.NotFound)
		if err != nil || c.Engine.API.String() != want || c.Engine.Slipway() || !c.Engine.Knows(40) || c.Engine.Knows(1000) {
			t.Errorf("%s: %+v, %v", api, c, err)
		}
	}
	for _, api := range []string{"", "1", "a.b", "-1.4"} {
		if _, err := connect(t, api, http.NotFound); err == nil || !strings.Contains(err.Error(), "no version of Docker's Engine API") {
			t.Errorf("%q: %v", api, err)
		}
	}
}

func TestAnswers(t *testing.T) {
	for _, test := range []struct {
		status                int
		body, image, wantFail string
	}{
		{200, `{"id":"moby.buildkit.trace","aux":"CgA="}` + "\r\n" + `{"id":"moby.image.id","aux":{"ID":"sha256:1"}}` + "\r\n" + `{"stream":"x"}`, "sha256:1", ""},
		{200, "", "", ""},
		{200, `{"errorDetail":{"message":"M"},"error":"E"}`, "", "M"},
		{200, `{"error":"E"}`, "", "E"},
		{200, `{"id":"moby.buildkit.trace","aux":"!"}`, "", "read the build's progress: illegal base64"},
		{200, `{"id":"moby.buildkit.trace","aux":"//8="}`, "", "read the build's progress: proto"},
		{200, `{"id":"moby.image.id","aux":3}`, "", "read the image's id"},
		{200, `{"id":`, "", "read the build's progress: unexpected EOF"},
		{400, `{"message":"bad tag"}`, "", "the daemon answered 400 Bad Request: bad tag"},
		{500, "plain\n", "", "the daemon answered 500 Internal Server Error: plain"},
		{302, "", "", "the daemon answered 302 Found"},
	} {
		c, err := connect(t, "1.41", func(w http.ResponseWriter, r *http.Request) {
			if q := r.URL.Query(); r.URL.Path != "/v1.41/build" || q.Get("buildid") != "b" || q.Get("version") != "2" || q.Get("t") != "n" {
				t.Errorf("request %s", r.URL)
			}
			w.WriteHeader(test.status)
			_, _ = io.WriteString(w, test.body)
		})
		if err != nil {
			t.Fatal(err)
		}
		image, err := c.Build(t.Context(), Build{ID: "b", Query: url.Values{"t": {"n"}}}, none)
		if image != test.image || test.wantFail == "" != (err == nil) || err != nil && !strings.HasPrefix(err.Error(), test.wantFail) {
			t.Errorf("%s: image %q, %v", test.body, image, err)
		}
	}
}

// A message that never ends is not kept.
func TestMessageTooLarge(t *testing.T) {
	endless := io.MultiReader(strings.NewReader(`{"stream":"`), &letters{})
	if _, err := readBuild(endless, none); err == nil || !strings.Contains(err.Error(), "a message of more than") {
		t.Error(err)
	}
}

type letters struct{}

func (*letters) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// daemon pairs uploads and cancels as Docker's does.
type daemon struct {
	uploaded chan []byte
	once     sync.Once
	canceled chan struct{}
}

func (d *daemon) serve(w http.ResponseWriter, r *http.Request) {
	switch id := r.URL.Query().Get("buildid"); {
	case strings.HasSuffix(r.URL.Path, "/build/cancel"):
		d.once.Do(func() { close(d.canceled) })
	case strings.HasPrefix(id, uploadOf):
		b, err := io.ReadAll(r.Body)
		if err == nil {
			d.uploaded <- b
		}
	default:
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		select {
		case b := <-d.uploaded:
			_, _ = fmt.Fprintf(w, `{"id":"moby.image.id","aux":{"ID":"%d bytes"}}`, len(b))
		case <-d.canceled:
			_, _ = io.WriteString(w, `{"error":"context canceled"}`)
		case <-r.Context().Done():
		}
	}
}

func TestUpload(t *testing.T) {
	d := &daemon{uploaded: make(chan []byte, 1), canceled: make(chan struct{})}
	c, err := connect(t, "1.41", d.serve)
	if err != nil {
		t.Fatal(err)
	}
	image, err := c.Build(t.Context(), Build{ID: "b", Upload: bytes.NewReader(make([]byte, 1<<20))}, none)
	if image != "1048576 bytes" || err != nil {
		t.Errorf("%q, %v", image, err)
	}
	broken := io.MultiReader(strings.NewReader("x"), failing{})
	if _, err := c.Build(t.Context(), Build{ID: "b", Upload: broken}, none); err == nil || !strings.Contains(err.Error(), "send the build context: pipe burst") {
		t.Errorf("a context that cannot be read: %v", err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("pipe burst") }

func TestCancel(t *testing.T) {
	for name, upload := range map[string]bool{"plain": false, "with an upload that stands still": true} {
		d := &daemon{uploaded: make(chan []byte, 1), canceled: make(chan struct{})}
		c, err := connect(t, "1.41", d.serve)
		if err != nil {
			t.Fatal(err)
		}
		b := Build{ID: "b"}
		r, w := io.Pipe()
		if upload {
			b.Upload = r
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Build(ctx, b, none); err == nil {
			t.Errorf("%s: a cancelled build succeeds", name)
		}
		<-d.canceled
		_ = w.Close()
	}
}

// A daemon that hears of no cancelling is left.
func TestCancelUnheard(t *testing.T) {
	c, err := connect(t, "1.41", func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/cancel") {
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		<-r.Context().Done()
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Build(ctx, Build{ID: "b"}, none); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"id":"moby.buildkit.trace","aux":"CgA="}`))
	f.Add([]byte(`{"id":"moby.image.id","aux":{"ID":"sha256:1"}}{"error":"E"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if image, err := readBuild(bytes.NewReader(b), func(s *controlapi.StatusResponse) {
			if s == nil {
				t.Error("shown nothing")
			}
		}); err != nil && image != "" {
			t.Errorf("%q and %v", image, err)
		}
	})
}
