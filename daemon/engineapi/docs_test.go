package engineapi

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What the document describes is what is served, no more and no less. Refusals by prefix are described in its introduction.
func TestDocumentIsWhatIsServed(t *testing.T) {
	t.Parallel()
	d, err := parseDocument()
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]bool{}
	for _, r := range (&api{}).routes() {
		if r.method != "" {
			served[strings.ToLower(r.method)+" "+strings.ReplaceAll(r.path, "...}", "}")] = true
		}
	}
	for path, methods := range d.Paths {
		for method, o := range methods {
			if !served[method+" "+path] {
				t.Errorf("openapi.json describes %s %s, which is not served", method, path)
			}
			delete(served, method+" "+path)
			if o.Summary == "" || len(o.Tags) != 1 {
				t.Errorf("%s %s: no summary, or not one tag", method, path)
			}
			for _, m := range regexp.MustCompile(`\{([a-z]+)\}`).FindAllStringSubmatch(path, -1) {
				if !slices.ContainsFunc(o.Parameters, func(p parameter) bool { return p.Name == m[1] && p.In == "path" && p.Required }) {
					t.Errorf("%s %s: parameter %s is not described", method, path, m[1])
				}
			}
		}
	}
	for s := range served {
		t.Errorf("%s is served: describe it in openapi.json", s)
	}
}

func TestDocsNeedNothingFromElsewhere(t *testing.T) {
	t.Parallel()
	s, _ := newTestAPI(t)
	code, body, head := get(t, s.URL+"/v1.41/docs")
	if code != 200 || !strings.HasPrefix(head.Get("Content-Type"), "text/html") {
		t.Fatalf("%d %v", code, head)
	}
	for _, want := range []string{"/build/prune", "networkmode", "the build ID", "answers 501"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q on the page", want)
		}
	}
	if regexp.MustCompile(`(?i)(src|href)="?(https?:)?//|<script|@import|url\(`).MatchString(body) {
		t.Error("the page loads something")
	}
	if code, body, head := get(t, s.URL+"/openapi.json"); code != 200 || head.Get("Content-Type") != "application/json" || body != string(openapi) {
		t.Errorf("%d %v", code, head)
	}
}
