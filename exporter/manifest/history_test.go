package manifest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

func at(n int64) *time.Time {
	t := time.Unix(n, 0).UTC()
	return &t
}

// story writes a history as one word per entry: its text, "-" if it is empty, "@" and its time.
func story(history []ocispecs.History) string {
	var words []string
	for _, h := range history {
		w := h.CreatedBy
		if h.EmptyLayer {
			w += "-"
		}
		if h.Created != nil {
			w += fmt.Sprintf("@%d", h.Created.Unix())
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}

func parseStory(t *testing.T, s string) (history []ocispecs.History) {
	for _, w := range strings.Fields(s) {
		var h ocispecs.History
		if name, sec, ok := strings.Cut(w, "@"); ok {
			var n int64
			if _, err := fmt.Sscan(sec, &n); err != nil {
				t.Fatal(err)
			}
			w, h.Created = name, at(n)
		}
		h.CreatedBy, h.EmptyLayer = strings.CutSuffix(w, "-")
		history = append(history, h)
	}
	return history
}

// stackOf makes layers of words: a name, "!" if it has no content, "@" and its time.
func stackOf(t *testing.T, s string) (stack []layer) {
	for _, h := range parseStory(t, s) {
		l := layer{description: strings.TrimSuffix(h.CreatedBy, "!"), empty: strings.HasSuffix(h.CreatedBy, "!")}
		if h.Created != nil {
			l.created = *h.Created
		}
		stack = append(stack, l)
	}
	return stack
}

func TestNormalise(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, history, stack, want, kept string }{
		{"nothing", "", "", "", "[]"},
		{"as it should be", "FROM@1 RUN", "a@5 b@6", "FROM@1 RUN@6", "[true true]"},
		{"no history", "", "a@5 b@6", "a@5 b@6", "[true true]"},
		{"history ends early", "FROM@1", "a@5 b@6", "FROM@1 b@6", "[true true]"},
		{"history goes on", "FROM@1 RUN COPY", "a@5 b@6", "FROM@1 RUN@6 COPY-@6", "[true true]"},
		{"no layers", "FROM@1 ENV-", "", "FROM-@1 ENV-@1", "[]"},
		{"metadata before the first new layer is new", "FROM@1 ENV- RUN CMD-", "a@0 b@7", "FROM@1 ENV-@7 RUN@7 CMD-@7", "[true true]"},
		{"metadata between layers", "FROM@1 RUN ENV- RUN CMD-", "a@0 b@7 c@9", "FROM@1 RUN@7 ENV-@9 RUN@9 CMD-@9", "[true true true]"},
		{"metadata first of all", "ENV- COPY", "b@7", "ENV-@7 COPY@7", "[true]"},
		{"metadata only", "FROM@1 CMD-", "a@0", "FROM@1 CMD-@1", "[true]"},
		{"a step that changed nothing", "FROM@1 RUN COPY", "a@0 b!@5 c@6", "FROM@1 RUN-@5 COPY@6", "[true false true]"},
		{"a last step that changed nothing", "FROM@1 RUN", "a@0 b!@5", "FROM@1 RUN-@5", "[true false]"},
		{"no history and nothing changed", "", "a!@5", "", "[false]"},
		{"no times at all", "ENV- RUN", "b", "ENV- RUN", "[true]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			given := parseStory(t, c.history)
			got, kept := normalise(given, stackOf(t, c.stack))
			if story(got) != c.want || fmt.Sprint(kept) != c.kept {
				t.Errorf("got %s %v, want %s %s", story(got), kept, c.want, c.kept)
			}
			if story(given) != c.history {
				t.Errorf("the history given was changed to %s", story(given))
			}
			full := 0
			for _, h := range got {
				if !h.EmptyLayer {
					full++
				}
			}
			if layers := strings.Count(fmt.Sprint(kept), "true"); full != layers {
				t.Errorf("%d entries for %d layers", full, layers)
			}
		})
	}
}

type patched struct {
	Created      *time.Time
	OS           string
	Architecture string
	Variant      string
	Author       string
	Unknown      json.RawMessage
	Config       *ocispecs.ImageConfig
	RootFS       *struct {
		Type    string
		DiffIDs []string `json:"diff_ids"`
	}
	History []ocispecs.History
}

func patch(t *testing.T, in configInput) patched {
	t.Helper()
	c, err := patchConfig(in)
	if err != nil {
		t.Fatal(err)
	}
	var p patched
	if err := json.Unmarshal(c.json, &p); err != nil {
		t.Fatalf("%v in %s", err, c.json)
	}
	if p.RootFS == nil || p.RootFS.Type != "layers" || p.RootFS.DiffIDs == nil {
		t.Errorf("rootfs of %s", c.json)
	}
	return p
}

func TestConfigIsKept(t *testing.T) {
	t.Parallel()
	stack := []layer{{diffID: "sha256:aa", created: *at(50)}}
	p := patch(t, configInput{stack: stack, platform: ocispecs.Platform{OS: "linux", Architecture: "amd64"}, raw: []byte(`{
		"os":"linux","architecture":"riscv64","author":"me","unknown":{"b" : [1,  2]},"config":{"Cmd":["x"]},
		"rootfs":{"type":"layers","diff_ids":["sha256:old"]},"history":[{"created_by":"COPY"}]}`)})
	if p.Architecture != "riscv64" || p.Author != "me" || len(p.Config.Cmd) != 1 || string(p.Unknown) != `{"b":[1,2]}` {
		t.Errorf("got %+v", p)
	}
	if len(p.RootFS.DiffIDs) != 1 || p.RootFS.DiffIDs[0] != "sha256:aa" || story(p.History) != "COPY@50" || !p.Created.Equal(*at(50)) {
		t.Errorf("got %+v", p)
	}
}

func TestConfigOfNobody(t *testing.T) {
	t.Parallel()
	p := patch(t, configInput{platform: ocispecs.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}})
	if p.OS != "linux" || p.Architecture != "arm" || p.Variant != "v7" || p.Config.WorkingDir != "/" || len(p.Config.Env) != 1 || p.History == nil {
		t.Errorf("got %+v", p)
	}
	p = patch(t, configInput{platform: ocispecs.Platform{OS: "windows", Architecture: "amd64"}})
	if len(p.Config.Env) != 0 {
		t.Errorf("windows has a PATH of its own: %v", p.Config.Env)
	}
	p = patch(t, configInput{raw: []byte(`{"os":"","config":{}}`), platform: ocispecs.Platform{OS: "linux", Architecture: "arm64"}})
	if p.OS != "linux" || p.Architecture != "arm64" {
		t.Errorf("platform was not filled in: %+v", p)
	}
}

func TestEpoch(t *testing.T) {
	t.Parallel()
	const raw = `{"os":"linux","architecture":"amd64","history":[
		{"created":"1970-01-01T00:10:00Z","created_by":"FROM"},{"created_by":"ENV","empty_layer":true},{"created_by":"RUN"}]%s}`
	stack := []layer{{diffID: "sha256:aa", created: *at(900)}, {diffID: "sha256:bb", created: *at(1000)}}
	for _, c := range []struct {
		name, created, base, want string
		epoch                     int64
		at                        int64
	}{
		{"later is clamped", "", "", "FROM@100 ENV-@100 RUN@100", 100, 100},
		{"the base keeps its times", "", `{"history":[{"created":"1970-01-01T00:10:00Z","created_by":"FROM"}]}`, "FROM@600 ENV-@100 RUN@100", 100, 100},
		{"another base does not", "", `{"history":[{"created":"1970-01-01T00:10:00Z","created_by":"OTHER"}]}`, "FROM@100 ENV-@100 RUN@100", 100, 100},
		{"earlier stays", "", "", "FROM@600 ENV-@1000 RUN@1000", 2000, 1000},
		{"created is clamped", `,"created":"1970-01-01T01:00:00Z"`, "", "FROM@600 ENV-@1000 RUN@1000", 2000, 2000},
		{"created earlier stays", `,"created":"1970-01-01T00:00:05Z"`, "", "FROM@600 ENV-@1000 RUN@1000", 2000, 5},
		{"created null is none", `,"created":null`, "", "FROM@600 ENV-@1000 RUN@1000", 2000, 1000},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in := configInput{raw: fmt.Appendf(nil, raw, c.created), stack: stack, epoch: at(c.epoch)}
			if c.base != "" {
				in.base = []byte(c.base)
			}
			p := patch(t, in)
			if story(p.History) != c.want || p.Created == nil || p.Created.Unix() != c.at {
				t.Errorf("got %s, created %v, want %s, %d", story(p.History), p.Created, c.want, c.at)
			}
		})
	}
}

func TestConfigRefused(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"null", "[]", "{", `"x"`, `{"history":7}`, `{"created":"yesterday"}`, `{"history":[{"created":1}]}`} {
		if _, err := patchConfig(configInput{raw: []byte(bad)}); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
	if _, err := patchConfig(configInput{base: []byte("{")}); err == nil {
		t.Error("bad base config: no error")
	}
}

func FuzzPatchConfig(f *testing.F) {
	f.Add([]byte(`{"os":"linux","history":[{"empty_layer":true}]}`), []byte(`{"history":[{}]}`), 2)
	f.Add([]byte(`null`), []byte(``), 0)
	f.Fuzz(func(t *testing.T, raw, base []byte, n int) {
		stack := make([]layer, max(0, min(n, 8)))
		c, err := patchConfig(configInput{raw: raw, base: base, stack: stack, epoch: at(5)})
		if err != nil {
			return
		}
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(c.json, &fields); err != nil {
			t.Fatal(err)
		}
		var rootfs ocispecs.RootFS
		if err := json.Unmarshal(fields["rootfs"], &rootfs); err != nil || len(rootfs.DiffIDs) != len(stack) {
			t.Errorf("%v, %d of %d layers in %s", err, len(rootfs.DiffIDs), len(stack), c.json)
		}
	})
}
