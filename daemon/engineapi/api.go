package engineapi

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	"github.com/slipwaybuild/slipway/daemon"
	"github.com/slipwaybuild/slipway/daemon/listen"
	"github.com/slipwaybuild/slipway/session"
)

// The versions of the Engine API that are served.
const (
	apiVersion    = "1.41"
	minAPIVersion = "1.12"
)

// Options goes with [New].
type Options struct {
	Engine   *daemon.Engine
	Sessions *session.Manager
	// GRPC takes the connections that POST /grpc turns into HTTP/2.
	GRPC *listen.Queue
	// Version is the engine's own.
	Version string
	Logger  *slog.Logger
}

// New returns the API's handler.
func New(o Options) http.Handler {
	a := &api{Options: o}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_ping", a.ping)
	mux.HandleFunc("GET /version", a.version)
	mux.HandleFunc("POST /session", a.session)
	mux.HandleFunc("POST /grpc", a.grpc)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, http.StatusNotFound, "page not found")
	})
	return a.common(mux)
}

type api struct {
	Options
}

// versioned matches the version prefix of a path.
var versioned = regexp.MustCompile(`^/v([0-9]+)\.([0-9]+)(/.*)$`)

// common sets the headers of every answer and takes the version off the path.
func (a *api) common(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Api-Version", apiVersion)
		h.Set("Docker-Experimental", "false")
		h.Set("Server", fmt.Sprintf("Slipway/%s (%s)", a.Version, runtime.GOOS))
		if m := versioned.FindStringSubmatch(r.URL.Path); m != nil {
			if msg := checkVersion(m[1] + "." + m[2]); msg != "" {
				writeError(w, http.StatusBadRequest, msg)
				return
			}
			r = r.Clone(r.Context())
			r.URL.Path, r.URL.RawPath = m[3], ""
		}
		h.Set("Ostype", runtime.GOOS)
		next.ServeHTTP(w, r)
	})
}

// checkVersion returns docker's words about a version that is not served.
func checkVersion(v string) string {
	switch {
	case less(v, minAPIVersion):
		return fmt.Sprintf("client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", v, minAPIVersion)
	case less(apiVersion, v):
		return fmt.Sprintf("client version %s is too new. Maximum supported API version is %s", v, apiVersion)
	}
	return ""
}

// less compares two versions number by number.
func less(a, b string) bool {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(as), len(bs)) {
		x, errX := strconv.Atoi(as[i])
		y, errY := strconv.Atoi(bs[i])
		if errX != nil || errY != nil {
			return false
		}
		if x != y {
			return x < y
		}
	}
	return len(as) < len(bs)
}

func writeError(w http.ResponseWriter, code int, msg string) {
	writeJSON(w, code, map[string]string{"message": msg})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	// A client that went away does not need to hear of it.
	_ = json.NewEncoder(w).Encode(v)
}
