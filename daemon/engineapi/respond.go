package engineapi

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"time"
)

// response remembers whether anything was written, so that an error can still become the answer.
type response struct {
	http.ResponseWriter
	written  bool
	hijacked bool
}

// drainTime is how long the rest of a request that nobody reads may take to come, before its connection is closed.
const drainTime = 10 * time.Second

// finish is called when the handler has returned. The server waits for what is left of a request, and a client that does not
// send it must not be waited for.
func (w *response) finish(r *http.Request, patience time.Duration) {
	if !w.hijacked && r.Body != nil && r.Body != http.NoBody {
		_ = http.NewResponseController(w.ResponseWriter).SetReadDeadline(time.Now().Add(patience))
	}
}

func (w *response) WriteHeader(code int) {
	w.written = true
	w.ResponseWriter.WriteHeader(code)
}

func (w *response) Write(b []byte) (int, error) {
	w.written = true
	return w.ResponseWriter.Write(b)
}

// Unwrap serves [http.ResponseController].
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack serves upgrades. The connection is then the caller's, and nothing may be written here.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.written, w.hijacked = true, true
	}
	return conn, buf, err
}

// writeError answers with an error: as an object with a message, and as plain text to clients older than that.
func writeError(w http.ResponseWriter, r *http.Request, err error) {
	code := statusOf(err)
	if code == http.StatusNotModified {
		w.WriteHeader(code)
		return
	}
	// The version checks themselves are answered in the form everybody reads.
	if v := versionOf(r); v.less(version{1, 24}) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, err.Error()+"\n")
		return
	}
	writeJSON(w, code, map[string]string{"message": err.Error()})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	// A client that went away does not need to hear of it.
	_ = json.NewEncoder(w).Encode(v)
}

// answer writes v with status 200.
func answer(w http.ResponseWriter, v any) error {
	writeJSON(w, http.StatusOK, v)
	return nil
}

// always answers every request with v.
func always(v any) handler {
	return func(w http.ResponseWriter, _ *http.Request) error { return answer(w, v) }
}
