package request

import (
	"maps"
	"testing"
)

func TestAttests(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		o    Options
		want map[string]string
	}{
		{Options{}, map[string]string{}},
		{Options{Provenance: "true", SBOM: "false"}, map[string]string{"attest:provenance": ""}},
		{Options{Provenance: "mode=max,builder-id=x", SBOM: "generator=a/b:1"}, map[string]string{
			"attest:provenance": "mode=max,builder-id=x", "attest:sbom": "generator=a/b:1",
		}},
		{Options{Attests: []string{"type=sbom", `type=provenance,"builder-id=a,b"`}}, map[string]string{"attest:sbom": "", "attest:provenance": `"builder-id=a,b"`}},
		{Options{Attests: []string{"type=provenance,mode=max", "type=provenance,disabled=true"}}, map[string]string{}},
		{Options{Attests: []string{"sbom"}, SBOM: "0"}, map[string]string{}},
		{Options{Attests: []string{"mode=max"}}, nil},
		{Options{Attests: []string{"type=sbom,what"}}, nil},
		{Options{Attests: []string{"type=sbom,disabled=perhaps"}}, nil},
	} {
		got := map[string]string{}
		err := setAttests(got, c.o)
		if (err != nil) != (c.want == nil) || c.want != nil && !maps.Equal(got, c.want) {
			t.Errorf("%+v gives %v: %v", c.o, got, err)
		}
	}
}
