package engineapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/slipwaybuild/slipway/daemon"
	"github.com/slipwaybuild/slipway/frontend/classic"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/peer"
	"github.com/slipwaybuild/slipway/session/upload"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// buildServer serves the API over an engine whose builds write one step to their story and then do what the test says.
type buildServer struct {
	*httptest.Server
	t        *testing.T
	engine   *fakeEngine
	sessions *session.Manager
	api      *api

	mu       sync.Mutex
	journals map[string]*progress.Journal
}

func newBuildServer(t *testing.T, settings Settings, work func(ctx context.Context, s *buildServer, r daemon.Request) error) *buildServer {
	t.Helper()
	s := &buildServer{t: t, engine: &fakeEngine{}, journals: map[string]*progress.Journal{}}
	s.sessions = session.NewManager(session.ManagerOptions{Wait: time.Second})
	dir := t.TempDir()
	s.engine.build = func(ctx context.Context, r daemon.Request) (*daemon.Response, error) {
		j, err := progress.Create(filepath.Join(dir, r.Ref))
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		s.journals[r.Ref] = j
		s.mu.Unlock()
		defer j.Close()
		now := time.Now()
		j.Append(progress.Event{Vertex: &progress.Vertex{ID: "sha256:1", Name: "the step", Started: &now}})
		err = work(ctx, s, r)
		j.Append(progress.Event{Vertex: &progress.Vertex{ID: "sha256:1", Name: "the step", Started: &now, Completed: &now}})
		if err != nil {
			return nil, err
		}
		return &daemon.Response{Exporter: map[string]string{"containerimage.config.digest": "sha256:0123456789abcdef"}}, nil
	}
	s.engine.progress = func(ctx context.Context, ref string) (*progress.Reader, error) {
		for {
			s.mu.Lock()
			j := s.journals[ref]
			s.mu.Unlock()
			switch {
			case j != nil:
				return j.NewReader()
			case ctx.Err() != nil:
				return nil, daemon.ErrNoBuild
			}
			time.Sleep(time.Millisecond)
		}
	}
	h := New(Options{Engine: s.engine, Images: fakeImages{}, Sessions: s.sessions, Version: "1", Settings: func() Settings { return settings }, Logger: discard()})
	s.api = h.(*api)
	s.api.uploads.wait, s.api.drain = 5*time.Second, 50*time.Millisecond
	s.Server = httptest.NewServer(h)
	t.Cleanup(func() {
		s.Close()
		if err := s.sessions.Close(); err != nil {
			t.Error(err)
		}
		if n := s.api.uploads.waiting(); n != 0 {
			t.Errorf("%d uploads are left", n)
		}
		if n := len(s.api.jobs.byID); n != 0 {
			t.Errorf("%d jobs are left", n)
		}
	})
	return s
}

// context reads what the build's context URL stands for.
func (s *buildServer) context(ctx context.Context, r daemon.Request) (string, error) {
	u, err := url.Parse(r.FrontendAttrs["context"])
	if err != nil {
		return "", err
	}
	body, err := upload.Pull(ctx, s.sessions.Group(r.Sessions...), u.Host, u.Path)
	if err != nil {
		return "", err
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	return string(b), err
}

func messages(t *testing.T, body string) (list []message) {
	t.Helper()
	for line := range strings.SplitSeq(strings.TrimSuffix(body, "\r\n"), "\r\n") {
		var m message
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		list = append(list, m)
	}
	return list
}

func text(m message) string { b, _ := json.Marshal(m); return string(b) }

func TestBuildTellsItsStoryAndItsImage(t *testing.T) {
	t.Parallel()
	s := newBuildServer(t, Settings{}, func(context.Context, *buildServer, daemon.Request) error { return nil })
	code, body, _ := post(t, s.URL+"/v1.41/build?version=2&session=s&remote=client-session&t=a:1&t=b", nil)
	list := messages(t, body)
	if code != 200 || len(list) < 4 {
		t.Fatalf("%d %q", code, body)
	}
	var seen string
	for _, m := range list[:len(list)-3] {
		b, err := json.Marshal(m.Aux)
		var raw []byte
		if m.ID != "moby.buildkit.trace" || err != nil || json.Unmarshal(b, &raw) != nil {
			t.Fatalf("%+v", m)
		}
		var st controlapi.StatusResponse
		if err := st.UnmarshalVT(raw); err != nil {
			t.Fatal(err)
		}
		for _, v := range st.Vertexes {
			seen = v.Name
		}
	}
	tail := list[len(list)-3:]
	if seen != "the step" || text(tail[0]) != `{"id":"moby.image.id","aux":{"ID":"sha256:0123456789abcdef"}}` ||
		tail[1].Stream != "Successfully tagged a:1\n" || tail[2].Stream != "Successfully tagged b:latest\n" {
		t.Errorf("%q, %+v", seen, tail)
	}
}

func TestFailuresOfBuilds(t *testing.T) {
	t.Parallel()
	failure := &gwpb.ExitError{ExitCode: 7, Err: errors.New("exit code: 7")}
	s := newBuildServer(t, Settings{EngineForClassic: true}, func(context.Context, *buildServer, daemon.Request) error { return failure })
	for query, want := range map[string]int{"version=2": 0, "version=1": 7, "": 7} {
		for _, quiet := range []string{"", "&q=1"} {
			code, body, _ := post(t, s.URL+"/build?"+query+quiet, strings.NewReader("FROM scratch"))
			// The body is not read by this engine, so the failure is the answer.
			if code != 500 || !strings.Contains(body, failure.Error()) {
				t.Errorf("%s: %d %q", query+quiet, code, body)
			}
		}
		code, body, _ := post(t, s.URL+"/build?remote=http://example.com/x&"+query, nil)
		list := messages(t, body)
		last := list[len(list)-1]
		if code != 200 || len(list) < 2 || last.Error != failure.Error() || last.Failure.Code != want {
			t.Errorf("%s: %d %q", query, code, body)
		}
	}
}

func TestQuietBuilds(t *testing.T) {
	t.Parallel()
	fail := false
	s := newBuildServer(t, Settings{}, func(context.Context, *buildServer, daemon.Request) error {
		if fail {
			return errors.New("it broke")
		}
		return nil
	})
	const query = "/build?version=2&session=s&q=1&t=a"
	if _, body, _ := post(t, s.URL+query, nil); body != "{\"stream\":\"sha256:0123456789abcdef\\n\"}\r\n" {
		t.Errorf("%q", body)
	}
	fail = true
	if _, body, _ := post(t, s.URL+query, nil); !strings.Contains(body, "moby.buildkit.trace") || !strings.HasSuffix(body, "\"error\":\"it broke\"}\r\n") {
		t.Errorf("what went before the failure is not shown: %q", body)
	}
}

func TestClassicClients(t *testing.T) {
	t.Parallel()
	work := func(ctx context.Context, s *buildServer, r daemon.Request) error {
		if got, err := s.context(ctx, r); got != "FROM scratch\n" || err != nil {
			t.Errorf("context %q, %v", got, err)
		}
		return nil
	}
	s := newBuildServer(t, Settings{EngineForClassic: true}, work)
	for _, query := range []string{"", "?version=1&t=a"} {
		code, body, _ := post(t, s.URL+"/build"+query, strings.NewReader("FROM scratch\n"))
		if code != 200 || !strings.Contains(body, `{"stream":"#1 the step\n"}`) || !strings.Contains(body, `{"aux":{"ID":"sha256:0123456789abcdef"}}`) ||
			!strings.Contains(body, `{"stream":"Successfully built 0123456789ab\n"}`) {
			t.Errorf("%d %q", code, body)
		}
	}
}

// What the classic builder tells becomes docker's messages.
func TestClassicBuilder(t *testing.T) {
	t.Parallel()
	s := newBuildServer(t, Settings{}, func(ctx context.Context, s *buildServer, r daemon.Request) error {
		if r.Classic == nil || len(r.Outputs) != 0 || r.Classic.KeepContainers != (r.FrontendAttrs["target"] == "kept") || !slices.Equal(r.Classic.Mentioned, []string{"m"}) ||
			!slices.Equal(r.Classic.CacheFrom, []string{"c"}) || !slices.Equal(r.Classic.Names, []string{"docker.io/library/a:latest"}) {
			t.Errorf("%+v", r.Classic)
		}
		if got, err := s.context(ctx, r); got != "FROM scratch\n" || err != nil {
			t.Errorf("context %q, %v", got, err)
		}
		o := r.Classic.Output
		o.Text("Step 1/1 : X")
		o.Printed(progress.Stdout, []byte("out\n"))
		o.Printed(progress.Stderr, []byte("err\n"))
		o.Downloaded(6)
		o.Image("sha256:0123456789abcdef")
		if r.FrontendAttrs["target"] == "fails" {
			return fmt.Errorf("wrapped: %w", &classic.CommandError{Command: "/bin/sh -c x", Code: 7})
		}
		return nil
	})
	told := `{"stream":"Step 1/1 : X"} {"stream":"out\n"} {"stream":"\u001b[91merr\n\u001b[0m"} ` +
		`{"status":"Downloading","progressDetail":{"current":6,"total":6},"progress":"[==================================================\u003e]       6B/6B"} `
	failed := `{"errorDetail":{"code":7,"message":"The command '/bin/sh -c x' returned a non-zero code: 7"},"error":"The command '/bin/sh -c x' returned a non-zero code: 7"}`
	const query = `/build?t=a&buildargs={"m":null}&cachefrom=["c"]`
	for more, want := range map[string]string{
		"":                  told + `{"aux":{"ID":"sha256:0123456789abcdef"}} {"stream":"Successfully built 0123456789ab\n"} {"stream":"Successfully tagged a:latest\n"}`,
		"&rm=0&target=kept": told + `{"aux":{"ID":"sha256:0123456789abcdef"}} {"stream":"Successfully built 0123456789ab\n"} {"stream":"Successfully tagged a:latest\n"}`,
		"&target=fails":     told + `{"aux":{"ID":"sha256:0123456789abcdef"}} ` + failed,
		"&q=1":              `{"stream":"sha256:0123456789abcdef\n"}`,
		"&q=1&target=fails": told + failed,
	} {
		code, body, _ := post(t, s.URL+query+more, strings.NewReader("FROM scratch\n"))
		if got := strings.ReplaceAll(strings.TrimSuffix(body, "\r\n"), "\r\n", " "); code != 200 || got != want {
			t.Errorf("%s: %d\n%s\nwant\n%s", more, code, got, want)
		}
	}
	if code, body, _ := post(t, s.URL+query+"&networkmode=mynet", strings.NewReader("x")); code != 400 || !strings.Contains(body, "bridge, host and none") {
		t.Errorf("a network that is not there: %d %s", code, body)
	}
}

func TestUploadAndBuildMeetInEitherOrder(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"upload", "build"} {
		t.Run(first, func(t *testing.T) {
			t.Parallel()
			s := newBuildServer(t, Settings{}, func(ctx context.Context, s *buildServer, r daemon.Request) error {
				if got, err := s.context(ctx, r); got != "the context" || err != nil {
					t.Errorf("context %q, %v", got, err)
				}
				return nil
			})
			var wg sync.WaitGroup
			upload := func() {
				if code, body, _ := post(t, s.URL+"/build?version=2&buildid=upload-request:x", strings.NewReader("the context")); code != 200 || body != "" {
					t.Errorf("upload: %d %q", code, body)
				}
			}
			build := func() {
				if code, body, _ := post(t, s.URL+"/build?version=2&buildid=x&remote=upload-request", nil); code != 200 || !strings.Contains(body, "moby.image.id") {
					t.Errorf("build: %d %q", code, body)
				}
			}
			if first == "build" {
				upload, build = build, upload
			}
			wg.Go(upload)
			for s.api.uploads.waiting() == 0 {
				time.Sleep(time.Millisecond)
			}
			wg.Go(build)
			wg.Wait()
		})
	}
}

func TestUploadsThatNeverMeet(t *testing.T) {
	t.Parallel()
	s := newBuildServer(t, Settings{}, nil)
	s.api.uploads.wait = 10 * time.Millisecond
	if code, body, _ := post(t, s.URL+"/build?version=2&buildid=upload-request:x", strings.NewReader("abc")); code != 408 || !strings.Contains(body, "no build asked") {
		t.Errorf("%d %q", code, body)
	}
	if code, body, _ := post(t, s.URL+"/build?version=2&buildid=y&remote=upload-request", nil); code != 400 || !strings.Contains(body, "did not arrive") {
		t.Errorf("%d %q", code, body)
	}
	if code, _, _ := post(t, s.URL+"/build?version=2&remote=upload-request", nil); code != 400 {
		t.Errorf("without an id: %d", code)
	}
}

// The build is over before its context was sent; the upload is told, and its connection is not read for ever.
func TestUploadOfABuildThatFails(t *testing.T) {
	t.Parallel()
	s := newBuildServer(t, Settings{}, func(context.Context, *buildServer, daemon.Request) error { return errors.New("it broke") })
	body, feed := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		res, err := http.Post(s.URL+"/build?version=2&buildid=upload-request:x", "", body)
		if err == nil {
			_ = res.Body.Close()
		}
	})
	_, _ = io.WriteString(feed, "a part")
	if _, answer, _ := post(t, s.URL+"/build?version=2&buildid=x&remote=upload-request", nil); !strings.Contains(answer, "it broke") {
		t.Errorf("%q", answer)
	}
	wg.Wait()
	_ = feed.Close()
}

func TestCancelEndsBothRequestsOfABuild(t *testing.T) {
	t.Parallel()
	begun := make(chan struct{})
	s := newBuildServer(t, Settings{}, func(ctx context.Context, _ *buildServer, _ daemon.Request) error {
		close(begun)
		<-ctx.Done()
		return ctx.Err()
	})
	body, feed := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		res, err := http.Post(s.URL+"/build?version=2&buildid=upload-request:x", "", body)
		if err == nil {
			_ = res.Body.Close()
		}
	})
	wg.Go(func() {
		code, answer, _ := post(t, s.URL+"/build?version=2&buildid=x&remote=upload-request", nil)
		if code != 200 || !strings.HasSuffix(answer, `{"errorDetail":{"message":"context canceled"},"error":"context canceled"}`+"\r\n") {
			t.Errorf("%d %q", code, answer)
		}
	})
	_, _ = io.WriteString(feed, "a part")
	<-begun
	if code, answer, _ := post(t, s.URL+"/v1.41/build/cancel?id=x", nil); code != 200 || answer != "" {
		t.Errorf("%d %q", code, answer)
	}
	wg.Wait()
	_ = feed.Close()
	if code, _, _ := post(t, s.URL+"/build/cancel?id=unknown", nil); code != 200 {
		t.Errorf("unknown id: %d", code)
	}
	if code, answer, _ := post(t, s.URL+"/build/cancel", nil); code != 400 || !strings.Contains(answer, "build ID not provided") {
		t.Errorf("no id: %d %q", code, answer)
	}
}

// With ref it is the build's own name that counts, and whether it is the client's.
func TestCancelByName(t *testing.T) {
	engine := &fakeEngine{}
	s, _ := newTestAPI(t, func(o *Options) { o.Engine = engine })
	code, answer, _ := post(t, s.URL+"/build/cancel?ref=some-ref", nil)
	if code != 403 || !strings.Contains(answer, daemon.ErrForeignBuild.Error()) || !slices.Equal(engine.cancelled, []string{" some-ref"}) {
		t.Errorf("%d %s; the engine was asked for %q", code, answer, engine.cancelled)
	}
}

// Names that clients choose for their builds are their own.
func TestBuildIDsBelongToTheirClients(t *testing.T) {
	var j jobs
	ann, end := j.start(peer.NewContext(t.Context(), "unix:1"), "x")
	defer end()
	j.cancel(peer.NewContext(t.Context(), "unix:2"), "x")
	if ann.Err() != nil {
		t.Error("cancelled by a stranger")
	}
	j.cancel(peer.NewContext(t.Context(), "unix:1"), "x")
	if ann.Err() == nil {
		t.Error("not cancelled by its owner")
	}
}

// A client that goes away cancels its build, whether its context was read or not.
func TestDisconnectCancels(t *testing.T) {
	t.Parallel()
	for _, head := range []string{
		"POST /build?version=2&session=s HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /build?version=2 HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nFROM",
	} {
		begun, ended := make(chan struct{}), make(chan error, 1)
		s := newBuildServer(t, Settings{}, func(ctx context.Context, s *buildServer, r daemon.Request) error {
			close(begun)
			var err error
			if r.FrontendAttrs["context"] != "" {
				_, err = s.context(ctx, r)
			} else {
				<-ctx.Done()
				err = ctx.Err()
			}
			ended <- err
			return err
		})
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, head); err != nil {
			t.Fatal(err)
		}
		<-begun
		_ = conn.Close()
		if err := <-ended; err == nil {
			t.Errorf("%q: the build went on", head)
		}
	}
}

// A client that stops in the middle of its context, and stays, is given up in the end.
func TestContextThatStalls(t *testing.T) {
	t.Parallel()
	var failed error
	s := serveOnce(t, func(w http.ResponseWriter, r *http.Request) error {
		out := newStream(w, r)
		body := newRequestBody(w, r)
		defer body.Stop()
		body.patience = 20 * time.Millisecond
		_, failed = io.Copy(io.Discard, body)
		return out.End(failed)
	})
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(answer), "408 Request Timeout") || failed == nil {
		t.Errorf("%q, %v, %v", answer, err, failed)
	}
}

func TestContextsThatAreNotThere(t *testing.T) {
	t.Parallel()
	s := newBuildServer(t, Settings{}, nil)
	for query, want := range map[string]string{
		"":                       "no build context",
		"&remote=client-session": "no session is named",
	} {
		if code, body, _ := post(t, s.URL+"/build?version=2"+query, nil); code != 400 || !strings.Contains(body, want) {
			t.Errorf("%q: %d %q", query, code, body)
		}
	}
}

func TestAccountsReachTheBuild(t *testing.T) {
	t.Parallel()
	s := newBuildServer(t, Settings{}, func(ctx context.Context, s *buildServer, r daemon.Request) error {
		if len(r.Sessions) != 2 || r.Sessions[0] != "own" {
			t.Errorf("sessions %q: the client's own comes first", r.Sessions)
		}
		return s.sessions.Group(r.Sessions[1:]...).Any(ctx, func(_ context.Context, c session.Caller) error {
			if !c.Supports("/moby.filesync.v1.Auth/Credentials") || c.Supports("/moby.upload.v1.Upload/Pull") {
				t.Error("the request's session offers something else than its accounts")
			}
			return nil
		})
	})
	req, _ := http.NewRequest("POST", s.URL+"/build?version=2&session=own&remote=client-session", nil)
	req.Header.Set("X-Registry-Config", "eyJoLmV4YW1wbGUiOnsidXNlcm5hbWUiOiJ1IiwicGFzc3dvcmQiOiJwIn19")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if res.StatusCode != 200 || strings.Contains(string(b), "errorDetail") {
		t.Errorf("%d %s", res.StatusCode, b)
	}
}

func TestPruneAndUsage(t *testing.T) {
	t.Parallel()
	s := newBuildServer(t, Settings{}, nil)
	s.engine.usage = []layers.Usage{
		{ID: "a1", Use: "regular", Size: 10, LastUsedAt: time.Now(), Parents: []string{"p"}},
		{ID: "b1", Use: "exec.cachemount", Size: 5, Shared: true},
	}
	var df diskUsage
	if _, body, _ := get(t, s.URL+"/v1.41/system/df"); json.Unmarshal([]byte(body), &df) != nil || len(df.BuildCache) != 2 || df.BuilderSize != 10 ||
		df.Containers == nil || df.Volumes == nil || df.BuildCache[0].Parent != "p" || df.BuildCache[1].LastUsedAt != nil {
		t.Errorf("%s", body)
	}
	_, heard := s.engine.hub.Listen(time.Time{})
	defer heard.Close()
	for query, want := range map[string]string{
		"":                                       `{"CachesDeleted":["a1","b1"],"SpaceReclaimed":15}`,
		"?filters={\"id\":{\"a\":true}}":         `{"CachesDeleted":["a1"],"SpaceReclaimed":10}`,
		"?filters={\"type\":[\"source.local\"]}": `{"CachesDeleted":null,"SpaceReclaimed":0}`,
		"?filters={\"private\":[\"true\"]}":      `{"CachesDeleted":["a1"],"SpaceReclaimed":10}`,
		"?filters={\"parent\":[\"p\"]}&all=1":    `{"CachesDeleted":["a1"],"SpaceReclaimed":10}`,
		"?filters={\"until\":[\"1day\"]}":        `{"message":"\"until\" filter expects a duration (e.g., '24h')"}`,
		"?filters={\"until\":[\"1h\"],\"unused-for\":[\"1h\"]}": `{"message":"conflicting filters: \"until\" and \"unused-for\""}`,
		"?filters={\"label\":[\"x\"]}":                          `{"message":"invalid filter 'label'"}`,
		"?keep-storage=much":                                    `{"message":"keep-storage is in bytes and expects an integer, got much"}`,
	} {
		if _, body, _ := post(t, s.URL+"/build/prune"+query, nil); strings.TrimSpace(body) != want {
			t.Errorf("%s: %s", query, body)
		}
	}
	if m := <-heard.Next(); m.Type != "builder" || m.Action != "prune" || m.Actor.Attributes["reclaimed"] == "" {
		t.Errorf("%+v", m)
	}
}

// The handshake of an upgrade takes any bytes without harm to other requests.
func FuzzUpgrade(f *testing.F) {
	f.Add("POST /session HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nX-Docker-Expose-Session-Uuid: a\r\n\r\nPRI")
	f.Add("POST /grpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	f.Add("POST /v1.41/session HTTP/1.0\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc")
	sessions := session.NewManager(session.ManagerOptions{})
	s := httptest.NewServer(New(Options{Engine: &fakeEngine{}, Images: fakeImages{}, Sessions: sessions, GRPC: closedQueue(), Version: "1", Logger: discard()}))
	f.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
		_ = sessions.Close()
	})
	f.Fuzz(func(t *testing.T, request string) {
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, request); err == nil {
			_ = conn.(*net.TCPConn).CloseWrite()
			_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			_, _ = bufio.NewReader(conn).ReadByte()
		}
		_ = conn.Close()
		res, err := http.Get(s.URL + "/_ping")
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != 200 {
			t.Errorf("status %d after %q", res.StatusCode, request)
		}
	})
}
