package debug

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type numbers struct{}

func (numbers) Active() int                    { return 3 }
func (numbers) Finished() (good, failed int64) { return 5, 7 }
func (numbers) Used() (used, limit int64)      { return 11, 13 }

func TestServe(t *testing.T) {
	s, err := Serve(t.Context(), "127.0.0.1:0", Handler(numbers{}))
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for path, want := range map[string][]string{
		"/metrics": {
			"slipway_builds_active 3", `slipway_builds_total{result="success"} 5`, `slipway_builds_total{result="failure"} 7`,
			"slipway_layers_used_bytes 11", "slipway_layers_limit_bytes 13", "go_goroutines", "process_open_fds",
		},
		"/debug/vars":                    {"memstats"},
		"/debug/pprof/":                  {"goroutine"},
		"/debug/pprof/goroutine?debug=1": {"goroutine profile"},
		"/debug/pprof/cmdline":           {"debug.test"},
	} {
		res, err := client.Get("http://" + s.Addrs()[0] + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		for _, w := range want {
			if err != nil || !strings.Contains(string(b), w) {
				t.Errorf("%s: %v: no %q", path, err, w)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Serve(t.Context(), "udp://1.2.3.4:5", nil); err == nil {
		t.Error("an address of no kind was taken")
	}
}
