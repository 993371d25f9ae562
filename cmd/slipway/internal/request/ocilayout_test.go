package request

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	digest "github.com/opencontainers/go-digest"
)

func TestAddLayout(t *testing.T) {
	t.Parallel()
	d, other := digest.FromString("one"), digest.FromString("two")
	layout := func(index string) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "index.json"), []byte(index), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	entry := func(d digest.Digest, tag string) string {
		if tag == "" {
			return fmt.Sprintf(`{"digest":%q,"size":1}`, d)
		}
		return fmt.Sprintf(`{"digest":%q,"size":1,"annotations":{"org.opencontainers.image.ref.name":%q}}`, d, tag)
	}
	two := layout(`{"manifests":[` + entry(d, "latest") + "," + entry(other, "v2") + `]}`)
	single := layout(`{"manifests":[` + entry(other, "") + `]}`)
	for where, want := range map[string]digest.Digest{
		two: d, two + ":v2": other, single: other, two + "@" + other.String(): other, two + ":v9@" + d.String(): d,
	} {
		s := &sources{}
		got, err := s.addLayout(layoutScheme + where)
		if err != nil || !strings.HasSuffix(got, "@"+want.String()) || len(s.stores) != 1 {
			t.Errorf("%s: got %q, %v, want digest %s", where, got, err, want)
		}
	}
	for where, want := range map[string]string{
		two + ":v3":                "no image with the tag",
		layout(`{"manifests":[]}`): "holds no image",
		layout(`not json`):         "index.json",
		filepath.Join(two, "nope"): "no such file",
		two + "@sha256:short":      "digest",
		layout(`{"manifests":[{"digest":"x","annotations":{"org.opencontainers.image.ref.name":"latest"}}]}`): "invalid",
	} {
		if _, err := (&sources{}).addLayout(layoutScheme + where); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", where, err, want)
		}
	}
}
