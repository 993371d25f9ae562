package engineapi

import (
	"net/http"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// ping answers GET and HEAD: what every client sends first.
func (a *api) ping(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Builder-Version", "2")
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		return
	}
	_, _ = w.Write([]byte("OK"))
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

func (a *api) version(w http.ResponseWriter, _ *http.Request) {
	answer := versionAnswer{
		Version: a.Version, APIVersion: apiVersion, MinAPIVersion: minAPIVersion,
		GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH, KernelVersion: kernel(),
		Components: []component{{Name: "Engine", Version: a.Version, Details: map[string]string{
			"ApiVersion": apiVersion, "MinAPIVersion": minAPIVersion, "Arch": runtime.GOARCH, "Os": runtime.GOOS,
			"GoVersion": runtime.Version(), "KernelVersion": kernel(),
		}}},
	}
	answer.Platform.Name = "Slipway"
	writeJSON(w, http.StatusOK, answer)
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return strings.TrimRight(string(u.Release[:]), "\x00")
}
