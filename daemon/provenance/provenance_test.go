package provenance

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/ops"
)

func TestRedact(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"https://u:p@h/x":                            "https://xxxxx:xxxxx@h/x",
		"https://token@h/x.git#main":                 "https://xxxxx@h/x.git#main",
		"ssh://git@h/x":                              "ssh://git@h/x",
		"ssh://git:pw@h/x":                           "ssh://xxxxx:xxxxx@h/x",
		"git@h:x/y.git":                              "git@h:x/y.git",
		"https://h/x@y":                              "https://h/x@y",
		"a https://u:p@h/x b http://q:r@i c":         "a https://xxxxx:xxxxx@h/x b http://xxxxx:xxxxx@i c",
		"docker-image://docker.io/library/x@sha256:": "docker-image://docker.io/library/x@sha256:",
		"https://u:@h":                               "https://xxxxx:xxxxx@h",
	} {
		if got := redact(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// definition marshals ops, each reading the one before.
func definition(t testing.TB, list ...*pb.Op) *pb.Definition {
	t.Helper()
	def := &pb.Definition{}
	var last digest.Digest
	for _, op := range append(list, &pb.Op{}) {
		if last != "" {
			op.Inputs = []*pb.Input{{Digest: string(last)}}
		}
		b, err := op.MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		last = digest.FromBytes(b)
		def.Def = append(def.Def, b)
	}
	return def
}

func TestStepsTellNoCredentials(t *testing.T) {
	t.Parallel()
	def := definition(t, &pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: "https://user:geheim@h/f", Attrs: map[string]string{
		"local.session": "geheim", "local.unique": "geheim", "http.header.authorization": "Bearer geheim", "git.fullurl": "https://geheim@h/x",
	}}}}, &pb.Op{Op: &pb.Op_Exec{Exec: &pb.ExecOp{Meta: &pb.Meta{
		Args: []string{"curl", "https://u:geheim@h"}, Env: []string{"P=http://u:geheim@p"}, ProxyEnv: &pb.ProxyEnv{HttpProxy: "http://u:geheim@p"},
	}}}})
	def.Source = &pb.Source{Infos: []*pb.SourceInfo{{Filename: "Dockerfile", Data: []byte("ADD https://u:geheim@h /\n")}}, Locations: map[string]*pb.Locations{
		string(digest.FromBytes(def.Def[0])): {}, "sha256:other": {},
	}}
	c := Capture{}
	p, err := c.Predicate(Options{Max: true}, Run{Definition: def})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(p)
	if err != nil || strings.Contains(string(b), "geheim") {
		t.Errorf("%v: %s", err, b)
	}
	source := p.(*predicate).RunDetails.Metadata.BuildKit.Source
	if len(source.Locations) != 1 || source.Locations["step0"] == nil || strings.Contains(string(source.Infos[0].Data), "geheim") {
		t.Errorf("the source map: %+v", source)
	}
	steps := p.(*predicate).BuildDefinition.InternalParameters.BuildConfig.Definition
	if len(steps) != 3 || !slices.Equal(steps[2].Inputs, []string{"step1:0"}) || !slices.Equal(steps[1].Inputs, []string{"step0:0"}) {
		t.Errorf("the steps: %+v", steps)
	}
}

func TestCaptureNamesWhatWasUsed(t *testing.T) {
	t.Parallel()
	amd64 := ocispecs.Platform{OS: "linux", Architecture: "amd64"}
	d := digest.FromString("image")
	c := Capture{Request: &Request{Frontend: "dockerfile.v0", Args: map[string]string{
		"context": "https://u:p@github.com/a/b.git#main:sub", "filename": "D", "platform": "x", "attest:sbom": "", "vcs:revision": "1234", "vcs:source": "https://u:p@h/x",
		"build-arg:X": "y", "target": "t",
	}}}
	c.Use(ops.Use{Network: true, Sources: []ops.SourceUse{
		{Identifier: "docker-image://docker.io/library/a:1@" + d.String(), Platform: amd64, Pin: d.String()},
		{Identifier: "git://github.com/a/b.git#main:sub", Attrs: map[string]string{pb.AttrFullRemoteURL: "https://u:p@github.com/a/b.git"}, Pin: strings.Repeat("a", 40)},
		{Identifier: "oci-layout://b@" + d.String(), Platform: amd64, Pin: d.String()},
	}, Secrets: []ops.GrantUse{{ID: "s", Optional: true}}})
	c.Use(ops.Use{Secrets: []ops.GrantUse{{ID: "s"}, {ID: "a"}}})
	c.AddImage(Image{Ref: "docker.io/library/a:1", Platform: &amd64, Digest: d})
	p, err := c.Predicate(Options{BuilderID: "me"}, Run{Started: time.Unix(1, 0), Environment: map[string]any{"site": "here", "builderPlatform": "wrong"}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"resolvedDependencies":[{"uri":"pkg:oci/b?`, `{"uri":"pkg:docker/a@1?platform=linux%2Famd64","digest":{"sha256":"` + d.Encoded() + `"}}`,
		`{"uri":"https://xxxxx:xxxxx@github.com/a/b.git#main","digest":{"sha1":"` + strings.Repeat("a", 40) + `"}}`,
		`"configSource":{"uri":"https://xxxxx:xxxxx@github.com/a/b.git#main:sub","digest":{"sha1":"` + strings.Repeat("a", 40) + `"},"path":"D"}`,
		`"request":{"frontend":"dockerfile.v0","args":{"target":"t"}}`, `"vcs":{"revision":"1234","source":"https://xxxxx:xxxxx@h/x"}`,
		`"buildkit_completeness":{"request":false,"resolvedDependencies":true}`, `"site":"here"`,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%s is missing in\n%s", want, b)
		}
	}
	if strings.Contains(string(b), "wrong") || strings.Contains(string(b), "hermetic") {
		t.Errorf("provenance: %s", b)
	}
	if want := []ops.GrantUse{{ID: "a"}, {ID: "s"}}; !slices.Equal(c.Secrets, want) {
		t.Errorf("secrets %v, want %v", c.Secrets, want)
	}
}

func TestIncompleteMaterials(t *testing.T) {
	t.Parallel()
	for _, use := range []ops.Use{
		{Nested: true}, {Sources: []ops.SourceUse{{Identifier: "local://context"}}}, {Sources: []ops.SourceUse{{Identifier: "https://h/x"}}},
		{Sources: []ops.SourceUse{{Identifier: "strange://h/x"}}},
	} {
		c := Capture{}
		c.Use(use)
		if err := c.Complete(Options{CompleteMaterials: true}); err == nil {
			t.Errorf("%+v is taken for complete", use)
		}
		if err := c.Complete(Options{}); err != nil {
			t.Errorf("%+v: %v", use, err)
		}
	}
}

func FuzzSteps(f *testing.F) {
	def := definition(f, &pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: "local://x"}}})
	f.Add(def.Def[0], def.Def[1])
	f.Fuzz(func(t *testing.T, a, b []byte) {
		c := Capture{}
		p, err := c.Predicate(Options{Max: true}, Run{Definition: &pb.Definition{Def: [][]byte{a, b}}})
		if err != nil {
			return
		}
		if _, err := json.Marshal(p); err != nil {
			t.Error(err)
		}
	})
}

func TestReadEnvironment(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("b.json", `{"a":2,"b":"x"}`)
	put("a.json", `{"a":1,"c":[1]}`)
	put("note.txt", "no JSON")
	got, err := ReadEnvironment(dir)
	if b, _ := json.Marshal(got); err != nil || string(b) != `{"a":2,"b":"x","c":[1]}` {
		t.Errorf("read %s: %v", b, err)
	}
	for _, none := range []string{"", filepath.Join(dir, "missing")} {
		if got, err := ReadEnvironment(none); got != nil || err != nil {
			t.Errorf("%q gives %v: %v", none, got, err)
		}
	}
	put("c.json", `[]`)
	if _, err := ReadEnvironment(dir); err == nil || !strings.Contains(err.Error(), "c.json") {
		t.Errorf("a file that is no object: %v", err)
	}
}

func TestChainsAccountForLayers(t *testing.T) {
	t.Parallel()
	run := func(input int64) *pb.Op {
		return &pb.Op{Op: &pb.Op_Exec{Exec: &pb.ExecOp{Mounts: []*pb.Mount{{Dest: "/", Input: input}}}}}
	}
	file := func(input int64) *pb.Op {
		return &pb.Op{Op: &pb.Op_File{File: &pb.FileOp{Actions: []*pb.FileAction{{Input: input, Output: -1}, {Input: 1, Output: 0}}}}}
	}
	image := &pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: "docker-image://x"}}}
	merge := &pb.Op{Op: &pb.Op_Merge{Merge: &pb.MergeOp{}}}
	for name, c := range map[string]struct {
		def          *pb.Definition
		layers, base int
		want         map[string]int
	}{
		"over an image":  {definition(t, image.CloneVT(), run(0), file(0)), 4, 2, map[string]int{"step2:0": 4, "step1:0": 3, "step0:0": 2}},
		"an empty layer": {definition(t, image.CloneVT(), run(0), file(0)), 3, 2, map[string]int{"step2:0": 3}},
		"over nothing":   {definition(t, run(-1)), 1, 0, map[string]int{"step0:0": 1}},
		"merged":         {definition(t, image.CloneVT(), merge, run(0)), 3, 1, map[string]int{"step2:0": 3}},
		"no layers":      {definition(t, run(-1)), 0, 0, map[string]int{}},
		"no sense":       {definition(t, image.CloneVT(), file(7)), 2, 1, map[string]int{"step1:0": 2}},
	} {
		b, err := steps(c.def)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]int{}
		for k, v := range b.chains(make([]ocispecs.Descriptor, c.layers), c.base) {
			got[k] = len(v[0])
		}
		if !maps.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}
