package attestation

import (
	"encoding/json"
	"testing"

	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/result"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/layers"
)

func TestMainBillComesFirst(t *testing.T) {
	t.Parallel()
	core := map[string][]byte{result.AttestationSBOMCore: []byte("sbom")}
	list := []Attestation{{Path: "/x.json"}, {Path: "/sbom-context.spdx.json", Metadata: core}, {Path: "/sbom.spdx.json", Metadata: core}}
	coreFirst(list)
	if list[0].Path != "/sbom.spdx.json" || list[1].Path != "/x.json" {
		t.Errorf("the order is %v", list)
	}
}

func TestSubjects(t *testing.T) {
	t.Parallel()
	self := []Subject{{Name: "pkg:docker/a", Digest: map[string]string{"sha256": "1"}}, {Name: "pkg:docker/b", Digest: map[string]string{"sha256": "1"}}}
	got, err := subjectsOf(Attestation{Subjects: []result.InTotoSubject{
		{Kind: gwpb.InTotoSubjectKind_Self, Name: "more"}, {Kind: gwpb.InTotoSubjectKind_Raw, Digest: []digest.Digest{digest.FromString("x")}},
	}}, self)
	if err != nil || len(got) != 5 || got[1].Name != "more" || got[4].Name != "_" {
		t.Errorf("subjects %v: %v", got, err)
	}
	for _, s := range []result.InTotoSubject{{Kind: 7}, {Kind: gwpb.InTotoSubjectKind_Raw, Digest: []digest.Digest{"sha256:1"}}} {
		if _, err := subjectsOf(Attestation{Subjects: []result.InTotoSubject{s}}, self); err == nil {
			t.Errorf("subject %+v: no error", s)
		}
	}
}

func FuzzStatement(f *testing.F) {
	f.Add([]byte(`{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"t","subject":[{"name":"n","digest":{"sha256":"00"}}],"predicate":{"a":1}}`))
	f.Add([]byte(`{"predicateType":"t"} {}`))
	f.Add([]byte(`{"predicateType":"t","subject":null,"predicate":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := unpack(Attestation{Kind: gwpb.AttestationKind_Bundle, Ref: &layers.Ref{}}, "f", b)
		if err != nil {
			return
		}
		predicate, err := Reader{}.predicate(t.Context(), a, nil)
		if err != nil || !json.Valid(predicate) || a.Type == "" {
			t.Errorf("%q gives the predicate %q of %q: %v", b, predicate, a.Type, err)
		}
	})
}
