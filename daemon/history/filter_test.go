package history

import (
	"errors"
	"strings"
	"testing"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// specimens are builds that filters tell apart.
func specimens() []*controlapi.BuildHistoryRecord {
	at := func(ago time.Duration) *timestamppb.Timestamp { return timestamppb.New(noon.Add(-ago)) }
	return []*controlapi.BuildHistoryRecord{
		{Ref: "runs", CreatedAt: at(time.Minute), FrontendAttrs: map[string]string{"context": "https://github.com/a/one.git#main"}},
		{Ref: "done", CreatedAt: at(time.Hour), CompletedAt: at(50 * time.Minute), FrontendAttrs: map[string]string{"vcs:source": "https://github.com/a/two.git"}},
		{Ref: "failed", CreatedAt: at(3 * time.Hour), CompletedAt: at(time.Hour), Error: &spb.Status{Code: int32(codes.Unknown), Message: "exit 1"}},
		{Ref: "stopped", CreatedAt: at(2 * time.Hour), CompletedAt: at(2*time.Hour - time.Second), Error: &spb.Status{Code: int32(codes.Canceled)}},
	}
}

func TestFilters(t *testing.T) {
	for filter, want := range map[string]string{
		"":                               "runs done failed stopped",
		"ref==done":                      "done",
		"ref~=o":                         "done stopped",
		"ref!=done":                      "runs failed stopped",
		"status==running":                "runs",
		"status==completed":              "done",
		"status==error":                  "failed",
		"status==canceled":               "stopped",
		"status!=canceled,ref~=e":        "done failed",
		"repository~=one":                "runs",
		"repository~=a/":                 "runs done",
		"startedAt>90m":                  "runs done",
		"startedAt<=2h":                  "failed stopped",
		"startedAt<2026-05-01T09:30:00Z": "failed",
		"completedAt>=1h":                "done failed",
		"completedAt<1h":                 "stopped",
		"duration>1h":                    "failed",
		"duration<=10m":                  "done stopped",
		"duration>=1s,duration<1h":       "done stopped",
		"status==error|ref==runs":        "failed runs",
		"unknown==x":                     "",
	} {
		t.Run(filter, func(t *testing.T) {
			m, err := parseFilters(strings.Split(filter, "|"), noon)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]bool{}
			for _, r := range specimens() {
				if m(r) {
					got[r.Ref] = true
				}
			}
			for _, ref := range strings.Fields(want) {
				if !got[ref] {
					t.Errorf("%s does not match", ref)
				}
				delete(got, ref)
			}
			for ref := range got {
				t.Errorf("%s matches", ref)
			}
		})
	}
}

func FuzzFilter(f *testing.F) {
	for _, s := range []string{"ref==a", "startedAt>=1h,duration<3s", `"a,b"`, "ref~=/x/", "completedAt<2026-05-01T09:30:00Z", "a<b", "\"", "status==\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := parseFilters([]string{text}, noon)
		if err != nil {
			if !errors.Is(err, ErrFilter) {
				t.Errorf("an error that is not the filter's: %v", err)
			}
			return
		}
		for _, r := range specimens() {
			m(r)
		}
	})
}

func TestRedact(t *testing.T) {
	for text, want := range map[string]string{
		"plain":                               "plain",
		"https://h/x":                         "https://h/x",
		"https://token@h/x":                   "https://xxxxx@h/x",
		"see https://u:p@h/x and http://:p@h": "see https://xxxxx:xxxxx@h/x and http://xxxxx@h",
		"ssh://git@h/x":                       "ssh://git@h/x",
		"ssh://git:pw@h/x":                    "ssh://xxxxx:xxxxx@h/x",
		"https://h/x?a=b@c":                   "https://h/x?a=b@c",
		"git@github.com:a/b":                  "git@github.com:a/b",
		"https://@h":                          "https://@h",
		"https://u:p@ss@h/":                   "https://xxxxx:xxxxx@h/",
		`{"ref":"https://u:p@h/x","b":"user@dom"}`: `{"ref":"https://xxxxx:xxxxx@h/x","b":"user@dom"}`,
	} {
		if got := redact(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
	long := map[string]string{"a": strings.Repeat("x", maxValue+1), "b": "c"}
	if got := redactAll(long); len(got["a"]) > 100 || got["b"] != "c" {
		t.Errorf("a long value: %d bytes, %q", len(got["a"]), got["b"])
	}
}

func FuzzRedact(f *testing.F) {
	f.Add("https://u:p@h/x")
	f.Fuzz(func(t *testing.T, text string) {
		if once := redact(text); redact(once) != once {
			t.Errorf("%q becomes %q and then %q", text, once, redact(once))
		}
	})
}
