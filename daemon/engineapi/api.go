package engineapi

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/slipwaybuild/slipway/daemon/listen"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/resume"
)

// Options goes with [New].
type Options struct {
	Engine   Engine
	Sessions *session.Manager
	// Resume takes the connections that may break; nil serves none.
	Resume *resume.Server
	// SameHost takes the descriptors that clients on this host pass; nil takes none.
	SameHost http.Handler
	// GRPC takes the connections that POST /grpc turns into HTTP/2.
	GRPC *listen.Queue
	// Settings is asked at every request; nil is the zero Settings.
	Settings func() Settings
	// Images is the local image store.
	Images Images
	// Version is the engine's own.
	Version string
	Logger  *slog.Logger
}

// New returns the API's handler.
func New(o Options) http.Handler {
	if o.Settings == nil {
		o.Settings = func() Settings { return Settings{} }
	}
	a := &api{Options: o, uploads: newUploads(uploadWait), drain: drainTime}
	a.router = newRouter(a.routes())
	return a
}

type api struct {
	Options
	router  router
	jobs    jobs
	uploads *uploads
	drain   time.Duration
}

// routes lists what is served. The first that matches counts, so what is refused by its prefix comes last.
func (a *api) routes() []route {
	return slices.Concat(
		a.systemRoutes(),
		a.connectionRoutes(),
		a.buildRoutes(),
		a.imageRoutes(),
		docsRoutes(),
		emptyRoutes(),
		unservedRoutes(),
	)
}

// ServeHTTP sets the headers of every answer, takes the version off the path and answers.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Api-Version", newest.String())
	h.Set("Docker-Experimental", "false")
	h.Set("Server", fmt.Sprintf("Slipway/%s (%s)", a.Version, runtime.GOOS))
	out := &response{ResponseWriter: w}
	defer out.finish(r, a.drain)
	v, path, given := splitVersion(r.URL.Path)
	if given {
		if err := v.check(); err != nil {
			writeError(out, r, err)
			return
		}
		r = withVersion(r, v)
	}
	h.Set("Ostype", runtime.GOOS)
	err := a.serve(out, r, path)
	switch {
	case err == nil:
	case out.written:
		a.Logger.Debug("request failed after its answer began", "method", r.Method, "path", path, "error", err)
	default:
		if statusOf(err) == http.StatusInternalServerError {
			a.Logger.Warn("request failed", "method", r.Method, "path", path, "error", err)
		}
		writeError(out, r, err)
	}
}

// serve calls the handler; one that panics fails its own request only.
func (a *api) serve(w *response, r *http.Request, path string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			a.Logger.Error("handler panicked", "method", r.Method, "path", path, "panic", p, "stack", string(debug.Stack()))
			err = withStatus(http.StatusInternalServerError, "internal error: %v", p)
		}
	}()
	return a.router.find(r, path)(w, r)
}
