package engineapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/slipwaybuild/slipway/daemon"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// serveOnce serves one handler the way the API does.
func serveOnce(t *testing.T, h handler) *httptest.Server {
	t.Helper()
	a := &api{Options: Options{Logger: discard()}, router: newRouter([]route{{"POST", "/x", h}}), drain: 50 * time.Millisecond}
	s := httptest.NewServer(a)
	t.Cleanup(s.Close)
	return s
}

func post(t *testing.T, url string, body io.Reader) (int, string, http.Header) {
	t.Helper()
	res, err := http.Post(url, "application/x-tar", body)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b), res.Header
}

func TestStreamFrames(t *testing.T) {
	t.Parallel()
	s := serveOnce(t, func(w http.ResponseWriter, r *http.Request) error {
		out := newStream(w, r)
		_ = out.Send(message{Stream: "a -> b\n"})
		_ = out.Send(message{ID: "x", Status: "Pulling", Detail: &progressDetail{Current: 1, Total: 2}})
		return out.EndWith(errors.New("it broke"), 7)
	})
	code, body, head := post(t, s.URL+"/x", nil)
	want := "{\"stream\":\"a -\\u003e b\\n\"}\r\n" +
		"{\"status\":\"Pulling\",\"progressDetail\":{\"current\":1,\"total\":2},\"id\":\"x\"}\r\n" +
		"{\"errorDetail\":{\"code\":7,\"message\":\"it broke\"},\"error\":\"it broke\"}\r\n"
	if code != http.StatusOK || body != want || head.Get("Content-Type") != "application/json" {
		t.Errorf("%d %q %v", code, body, head)
	}
}

func TestErrorBeforeTheFirstMessageIsTheAnswer(t *testing.T) {
	t.Parallel()
	s := serveOnce(t, func(w http.ResponseWriter, r *http.Request) error {
		return newStream(w, r).End(conflict("no"))
	})
	if code, body, _ := post(t, s.URL+"/x", nil); code != http.StatusConflict || body != "{\"message\":\"no\"}\n" {
		t.Errorf("%d %q", code, body)
	}
}

func TestAnswerIsHeldUntilTheRequestIsRead(t *testing.T) {
	t.Parallel()
	sent := make(chan struct{})
	s := serveOnce(t, func(w http.ResponseWriter, r *http.Request) error {
		out := newStream(w, r)
		_ = out.Send(message{Stream: "early"})
		if out.started {
			t.Error("sent while the client was sending")
		}
		close(sent)
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return err
		}
		if !out.started {
			t.Error("not sent once the client had sent")
		}
		return out.End(nil)
	})
	// A client that sends the rest of its request only after it has heard that the handler wrote.
	body, feed := io.Pipe()
	go func() {
		_, _ = io.WriteString(feed, "first")
		<-sent
		_, _ = io.WriteString(feed, strings.Repeat("x", 1<<20))
		_ = feed.Close()
	}()
	if code, got, _ := post(t, s.URL+"/x", body); code != http.StatusOK || got != "{\"stream\":\"early\"}\r\n" {
		t.Errorf("%d %q", code, got)
	}
}

func TestFailureWhileHeldIsTheAnswer(t *testing.T) {
	t.Parallel()
	s := serveOnce(t, func(w http.ResponseWriter, r *http.Request) error {
		out := newStream(w, r)
		_ = out.Send(message{Stream: "never seen"})
		return out.End(invalid("bad"))
	})
	if code, body, _ := post(t, s.URL+"/x", strings.NewReader("abc")); code != http.StatusBadRequest || body != "{\"message\":\"bad\"}\n" {
		t.Errorf("%d %q", code, body)
	}
}

func TestPanicFailsItsOwnRequestOnly(t *testing.T) {
	t.Parallel()
	s := serveOnce(t, func(http.ResponseWriter, *http.Request) error { panic("oh") })
	for range 2 {
		if code, body, _ := post(t, s.URL+"/x", nil); code != http.StatusInternalServerError || !strings.Contains(body, "oh") {
			t.Errorf("%d %q", code, body)
		}
	}
}

func TestOldClientsGetPlainErrors(t *testing.T) {
	t.Parallel()
	s := serveOnce(t, func(http.ResponseWriter, *http.Request) error { return notFound("gone") })
	if code, body, _ := post(t, s.URL+"/v1.23/x", nil); code != http.StatusNotFound || body != "gone\n" {
		t.Errorf("%d %q", code, body)
	}
	if _, body, _ := post(t, s.URL+"/v1.24/x", nil); body != "{\"message\":\"gone\"}\n" {
		t.Errorf("%q", body)
	}
}

func TestStatusByClass(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err  error
		want int
	}{
		{errors.New("x"), 500},
		{fmt.Errorf("look: %w", notFound("x")), 404},
		{fmt.Errorf("x: %w", daemon.ErrInvalidRequest), 400},
		{fmt.Errorf("x: %w", daemon.ErrBuildExists), 409},
		{fmt.Errorf("x: %w", errdefs.ErrNotFound), 404},
		{fmt.Errorf("x: %w", errdefs.ErrUnauthenticated), 401},
		{fmt.Errorf("x: %w", errdefs.ErrFailedPrecondition), 400},
		{fmt.Errorf("x: %w", errdefs.ErrUnavailable), 503},
		{status.Error(codes.PermissionDenied, "x"), 403},
		{fmt.Errorf("x: %w", status.Error(codes.Unimplemented, "x")), 501},
		{status.Error(codes.Internal, "x"), 500},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), 504},
		{&http.MaxBytesError{Limit: 1}, 413},
	} {
		if got := statusOf(test.err); got != test.want {
			t.Errorf("%v: %d, want %d", test.err, got, test.want)
		}
	}
}

// The rest of a request that nobody wants is not waited for.
func TestUnreadRequestIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	s := serveOnce(t, func(w http.ResponseWriter, _ *http.Request) error { return answer(w, "ok") })
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(conn, "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
	if b, err := io.ReadAll(conn); err != nil || !strings.Contains(string(b), "200 OK") {
		t.Errorf("%q, %v", b, err)
	}
}
