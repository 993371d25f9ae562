package engineapi

import (
	"bufio"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/slipwaybuild/slipway/daemon/listen"
	"github.com/slipwaybuild/slipway/session"
)

// newTestAPI serves the API over the engine of a test. Change o to the options wanted.
func newTestAPI(t *testing.T, change ...func(*Options)) (*httptest.Server, *listen.Queue) {
	t.Helper()
	sessions := session.NewManager(session.ManagerOptions{})
	q := listen.NewQueue()
	o := Options{Engine: &fakeEngine{}, Images: fakeImages{}, Sessions: sessions, GRPC: q, Version: "1.2.3", Logger: slog.New(slog.DiscardHandler)}
	for _, c := range change {
		c(&o)
	}
	s := httptest.NewServer(New(o))
	t.Cleanup(func() {
		s.Close()
		if err := sessions.Close(); err != nil {
			t.Error(err)
		}
		_ = q.Close()
	})
	return s, q
}

func TestHandshake(t *testing.T) {
	t.Parallel()
	s, _ := newTestAPI(t)
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		for _, path := range []string{"/_ping", "/v1.41/_ping"} {
			req, _ := http.NewRequest(method, s.URL+path, nil)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			_ = res.Body.Close()
			want := "OK"
			if method == http.MethodHead {
				want = ""
			}
			if res.StatusCode != http.StatusOK || string(body) != want {
				t.Errorf("%s %s: %d %q", method, path, res.StatusCode, body)
			}
			for header, want := range map[string]string{
				"Api-Version": "1.41", "Ostype": "linux", "Docker-Experimental": "false", "Builder-Version": "2", "Server": "Slipway/1.2.3 (linux)",
			} {
				if got := res.Header.Get(header); got != want {
					t.Errorf("%s %s: header %s is %q, want %q", method, path, header, got, want)
				}
			}
		}
	}
}

func TestErrorsAreMessages(t *testing.T) {
	t.Parallel()
	s, _ := newTestAPI(t)
	for _, test := range []struct {
		method, path string
		code         int
		message      string
	}{
		{"GET", "/nowhere", 404, "page not found"},
		{"GET", "/v1.41/nowhere", 404, "page not found"},
		{"GET", "/v9.99/_ping", 400, "client version 9.99 is too new. Maximum supported API version is 1.41"},
		{"GET", "/v1.11/_ping", 400, "client version 1.11 is too old. Minimum supported API version is 1.12, please upgrade your client to a newer version"},
		{"POST", "/session", 400, "no upgrade proto in request"},
		{"POST", "/grpc", 400, "no upgrade proto in request"},
		{"PUT", "/_ping", 404, "page not found"},
		{"GET", "/v1.41", 404, "page not found"},
		{"GET", "/v1.41/containers/some/json", 404, "No such container: some"},
		{"GET", "/plugins/a/b:c/json", 404, `plugin "a/b:c" not found`},
		{"POST", "/v1.41/containers/create", 501, "this is a build engine: it runs no containers"},
		{"GET", "/swarm", 501, "this is a build engine: it is no part of a swarm"},
		{"GET", "/events?since=yesterday", 400, `parameter since: "yesterday" is no time in seconds`},
		{"GET", "/events?since=2&until=1", 400, "`since` time (2) cannot be after `until` time (1)"},
		{"GET", "/events?filters=%7B%22color%22:%5B%22red%22%5D%7D", 400, "invalid filter 'color'"},
	} {
		req, _ := http.NewRequest(test.method, s.URL+test.path, nil)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var body struct{ Message string }
		err = json.NewDecoder(res.Body).Decode(&body)
		_ = res.Body.Close()
		if res.StatusCode != test.code || body.Message != test.message || err != nil {
			t.Errorf("%s %s: %d %q (%v), want %d %q", test.method, test.path, res.StatusCode, body.Message, err, test.code, test.message)
		}
	}
}

func TestGRPCUpgradeLosesNoByte(t *testing.T) {
	t.Parallel()
	s, q := newTestAPI(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// An eager client sends its preface along with the request.
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	if _, err := io.WriteString(conn, "POST /grpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"+preface); err != nil {
		t.Fatal(err)
	}
	server, err := q.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	got := make([]byte, len(preface))
	if _, err := io.ReadFull(server, got); err != nil || string(got) != preface {
		t.Errorf("the server read %q, %v", got, err)
	}
	if _, err := io.WriteString(server, "answer"); err != nil {
		t.Fatal(err)
	}
	const want = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nanswer"
	answer := make([]byte, len(want))
	if _, err := io.ReadFull(bufio.NewReader(conn), answer); err != nil || string(answer) != want {
		t.Errorf("the client read %q, %v", answer, err)
	}
}
