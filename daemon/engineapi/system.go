package engineapi

import (
	"io"
	"net/http"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

func (a *api) systemRoutes() []route {
	return []route{
		{http.MethodHead, "/_ping", a.ping},
		{http.MethodGet, "/_ping", a.ping},
		{http.MethodGet, "/version", a.version},
		{http.MethodGet, "/info", a.info},
		{http.MethodGet, "/events", a.events},
		{http.MethodGet, "/system/df", a.systemDF},
	}
}

// ping answers GET and HEAD: what every client sends first.
func (a *api) ping(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	h.Set("Builder-Version", "2")
	if b := a.Settings().BuildKit; b != nil && !*b {
		h.Set("Builder-Version", "1")
	}
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		w.WriteHeader(http.StatusOK)
		return nil
	}
	_, err := io.WriteString(w, "OK")
	return err
}

type component struct {
	Name    string
	Version string
	Details map[string]string `json:",omitempty"`
}

type versionAnswer struct {
	Platform      struct{ Name string }
	Components    []component
	Version       string
	APIVersion    string `json:"ApiVersion"`
	MinAPIVersion string
	GitCommit     string
	GoVersion     string
	Os            string
	Arch          string
	KernelVersion string
}

func (a *api) version(w http.ResponseWriter, _ *http.Request) error {
	v := versionAnswer{
		Version: a.Version, APIVersion: newest.String(), MinAPIVersion: oldest.String(),
		GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH, KernelVersion: kernel(),
		Components: []component{{Name: "Engine", Version: a.Version, Details: map[string]string{
			"ApiVersion": newest.String(), "MinAPIVersion": oldest.String(), "Arch": runtime.GOARCH, "Os": runtime.GOOS,
			"GoVersion": runtime.Version(), "KernelVersion": kernel(), "Experimental": "false",
		}}},
	}
	v.Platform.Name = "Slipway"
	return answer(w, v)
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return strings.TrimRight(string(u.Release[:]), "\x00")
}
