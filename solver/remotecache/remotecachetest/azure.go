package remotecachetest

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Azure is a blob storage account in memory, as far as caches use one.
type Azure struct {
	// URL is the account's.
	URL string
	// Authorize refuses requests that it returns false for. Nil takes all.
	Authorize func(*http.Request) bool

	mu     sync.Mutex
	blobs  map[string][]byte
	blocks map[string][]byte
	made   map[string]bool
}

// NewAzure serves an account until the test ends.
func NewAzure(t testing.TB) *Azure {
	t.Helper()
	a := &Azure{blobs: map[string][]byte{}, blocks: map[string][]byte{}, made: map[string]bool{}}
	srv := httptest.NewServer(a)
	t.Cleanup(srv.Close)
	a.URL = srv.URL
	return a
}

// Paths lists the blobs by their paths.
func (a *Azure) Paths() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []string
	for p := range a.blobs {
		list = append(list, p)
	}
	return list
}

// ServeHTTP implements [http.Handler].
func (a *Azure) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("X-Ms-Request-Id", "1")
	q := r.URL.Query()
	switch {
	case a.Authorize != nil && !a.Authorize(r):
		fail(w, http.StatusForbidden, "AuthenticationFailed")
	case r.Method == http.MethodPut && q.Get("restype") == "container":
		if a.made[r.URL.Path] {
			fail(w, http.StatusConflict, "ContainerAlreadyExists")
			return
		}
		a.made[r.URL.Path] = true
		w.WriteHeader(http.StatusCreated)
	case r.Method == http.MethodPut && q.Get("comp") == "block":
		a.blocks[r.URL.Path+" "+q.Get("blockid")] = body
		w.WriteHeader(http.StatusCreated)
	case r.Method == http.MethodPut && q.Get("comp") == "blocklist":
		a.commit(w, r.URL.Path, body)
	case r.Method == http.MethodPut:
		a.blobs[r.URL.Path] = body
		w.WriteHeader(http.StatusCreated)
	default:
		a.get(w, r)
	}
}

func (a *Azure) commit(w http.ResponseWriter, path string, body []byte) {
	var list struct {
		Latest []string `xml:"Latest"`
	}
	if err := xml.Unmarshal(body, &list); err != nil {
		fail(w, http.StatusBadRequest, "InvalidXmlDocument")
		return
	}
	blob := []byte{}
	for _, id := range list.Latest {
		b, ok := a.blocks[path+" "+id]
		if !ok {
			fail(w, http.StatusBadRequest, "InvalidBlockList")
			return
		}
		blob = append(blob, b...)
	}
	a.blobs[path] = blob
	w.WriteHeader(http.StatusCreated)
}

func (a *Azure) get(w http.ResponseWriter, r *http.Request) {
	blob, ok := a.blobs[r.URL.Path]
	if !ok {
		fail(w, http.StatusNotFound, "BlobNotFound")
		return
	}
	w.Header().Set("Last-Modified", time.Unix(1e9, 0).UTC().Format(http.TimeFormat))
	w.Header().Set("Etag", `"1"`)
	status, total := http.StatusOK, len(blob)
	from := r.Header.Get("X-Ms-Range")
	if from == "" {
		from = r.Header.Get("Range")
	}
	if begin, _, ok := strings.Cut(strings.TrimPrefix(from, "bytes="), "-"); ok {
		n, err := strconv.Atoi(begin)
		if err != nil || n > len(blob) {
			fail(w, http.StatusRequestedRangeNotSatisfiable, "InvalidRange")
			return
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", n, total-1, total))
		status, blob = http.StatusPartialContent, blob[n:]
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(blob)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(blob) // the client may have gone
	}
}

func fail(w http.ResponseWriter, status int, code string) {
	w.Header().Set("X-Ms-Error-Code", code)
	w.WriteHeader(status)
}
