package daemon

import (
	"strings"
	"testing"
)

func TestAccessToCachesIsNotRemembered(t *testing.T) {
	given := map[string]string{
		"filename":      "Dockerfile",
		"cache-imports": `[{"Type":"s3","Attrs":{"bucket":"caches","secret_access_key":"hush","session_token":"hush"}},{"Type":"gha","Attrs":{"token":"hush","url":"https://x?sig=hush","scope":"main"}}]`,
	}
	before := given["cache-imports"]
	got := withoutAccess(given)
	if strings.Contains(got["cache-imports"], "hush") || !strings.Contains(got["cache-imports"], "caches") || got["filename"] != "Dockerfile" {
		t.Errorf("kept %v", got)
	}
	if given["cache-imports"] != before {
		t.Error("the request was changed")
	}
	if got := withoutAccess(map[string]string{"cache-imports": "hush"}); got["cache-imports"] != "" {
		t.Errorf("kept what it does not understand: %v", got)
	}
}

func TestRequestedImports(t *testing.T) {
	list, err := requestedImports(Request{FrontendAttrs: map[string]string{
		"cache-from": "a, b", "cache-imports": `[{"Type":"local","Attrs":{"src":"/c"}}]`,
	}})
	if err != nil || len(list) != 3 || list[0].Type != "local" || list[1].Attrs["ref"] != "a" || list[2].Attrs["ref"] != "b" {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := requestedImports(Request{FrontendAttrs: map[string]string{"cache-imports": "{"}}); err == nil {
		t.Error("nonsense is taken")
	}
}
