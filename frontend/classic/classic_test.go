package classic

import (
	"archive/tar"
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

func ptr(s string) *string { return &s }

func TestBuildArgs(t *testing.T) {
	t.Parallel()
	a := newBuildArgs(map[string]string{"given": "g", "HTTP_PROXY": "p", "extra": "e"}, []string{"mentioned"})
	a.declareGlobal("global", ptr("1"))
	s := a.stage()
	if got := s.beside(nil); !slices.Equal(got, []string{"HTTP_PROXY=p"}) {
		t.Errorf("a stage begins with %q", got)
	}
	s.declare("given", ptr("default"))
	s.declare("global", nil)
	s.declare("unset", nil)
	s.declare("covered", ptr("arg"))
	got := s.beside([]string{"covered=env", "other=x"})
	if want := []string{"HTTP_PROXY=p", "given=g", "global=1"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	command := s.commandWith(got, []string{"/bin/sh", "-c", "x"})
	if want := []string{"|2", "given=g", "global=1", "/bin/sh", "-c", "x"}; !slices.Equal(command, want) {
		t.Errorf("%q, want %q", command, want)
	}
	s.declare("HTTP_PROXY", nil)
	if command := s.commandWith(got, nil); command[0] != "|3" {
		t.Errorf("%q: a predefined argument that is declared leaves a trace", command)
	}
	if got := a.unused(); !slices.Equal(got, []string{"extra", "mentioned"}) {
		t.Errorf("unused: %q", got)
	}
}

func TestCommentsInHistories(t *testing.T) {
	t.Parallel()
	c := &containerConfig{}
	if got := strings.Join(c.noted(`CMD ["x"]`, true).Cmd, " "); got != `/bin/sh -c #(nop)  CMD ["x"]` {
		t.Errorf("%q", got)
	}
	c.Shell = []string{"/bin/bash", "-ec"}
	in := copying{name: "COPY", dest: "/dst", infos: []copied{{sum: "file:1"}}}
	if got := strings.Join(c.noted(in.comment(), false).Cmd, " "); got != "/bin/bash -ec #(nop) COPY file:1 in /dst " {
		t.Errorf("%q", got)
	}
	in.chown, in.infos = "1:1", append(in.infos, copied{sum: "dir:2"})
	if got := in.comment(); !strings.HasPrefix(got, "COPY --chown=1:1multi:") {
		t.Errorf("%q: docker has no space there", got)
	}
}

func TestSameStep(t *testing.T) {
	t.Parallel()
	one := &containerConfig{Cmd: []string{"a"}, Env: []string{"x=y"}, Labels: map[string]string{"l": "v"}, Image: "sha256:1", Hostname: "h", WorkingDir: "/w"}
	other := one.clone()
	other.Image, other.Hostname, other.WorkingDir = "sha256:2", "i", "/v"
	if !sameStep(one, other) {
		t.Error("what names an image or a container makes a difference")
	}
	for name, change := range map[string]func(*containerConfig){
		"command": func(c *containerConfig) { c.Cmd[0] = "b" },
		"env":     func(c *containerConfig) { c.Env[0] = "x=z" },
		"label":   func(c *containerConfig) { c.Labels["l"] = "w" },
		"user":    func(c *containerConfig) { c.User = "u" },
		"volume":  func(c *containerConfig) { c.Volumes = map[string]struct{}{"/v": {}} },
	} {
		changed := one.clone()
		if change(changed); sameStep(one, changed) || !sameStep(one, one.clone()) {
			t.Errorf("%s makes no difference, or a copy shares it", name)
		}
	}
}

func TestPatterns(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{"a": false, "a*": true, `a\*`: false, `a\\*`: true, "[a]": true, "a?": true, `a\`: false} {
		if isPattern(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

func TestErrorsOfDockerfiles(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                         "the Dockerfile (D) cannot be empty",
		"  \n":                     "the Dockerfile (D) cannot be empty",
		"# nothing\n":              "failed to parse Dockerfile: file with no instructions",
		"FROM a\nFROB x\n":         "dockerfile parse error line 2: unknown instruction: FROB",
		"FROM a\nENV\n":            "dockerfile parse error line 2: ENV requires at least one argument",
		"FROM a\nCOPY --x=1 a b\n": "dockerfile parse error line 2: unknown flag: --x",
	} {
		_, err := parseDockerfile([]byte(text), "D")
		var own *Error
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		} else if !errors.As(err, &own) || !own.Invalid {
			t.Errorf("%q: not the request's fault", text)
		}
	}
}

// Whatever a Dockerfile or an image's trigger holds, reading it ends with a result or an error.
func FuzzDockerfile(f *testing.F) {
	for _, s := range []string{"FROM a\nRUN b\n", "ARG x\nFROM a AS b\nCOPY --from=b x y\n", "# escape=`\nFROM a\n", "FROM a\nRUN <<E\nx\nE\n", "FROM a\nRUN x \\\n\n y\n", "ONBUILD RUN x", "HEALTHCHECK --interval=5s CMD [\"a\"]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if d, err := parseDockerfile(text, "Dockerfile"); err == nil {
			n := len(d.args)
			for _, s := range d.stages {
				n += 1 + len(s.Commands)
			}
			if d.steps() != n {
				t.Errorf("%d steps, want %d", d.steps(), n)
			}
		}
		if c, err := parseTrigger(string(text)); err == nil && c == nil {
			t.Error("neither an instruction nor an error")
		}
	})
}

// The config of an image is foreign, too.
func FuzzImageConfig(f *testing.F) {
	f.Add([]byte(`{"config":{"Env":["a=b"],"Volumes":{"/v":{}}},"history":[{"created_by":"x"}],"rootfs":{"type":"layers"}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := parseImage(raw)
		if err == nil && c.Config != nil && !sameStep(c.Config, c.Config.clone()) {
			t.Error("a copy is not the same")
		}
	})
}

func TestArchives(t *testing.T) {
	t.Parallel()
	var pax bytes.Buffer
	w := tar.NewWriter(&pax)
	if err := w.WriteHeader(&tar.Header{Name: "f", Mode: 0o644, Size: 1, PAXRecords: map[string]string{"SLIPWAY.long": strings.Repeat("x", 5000)}}); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		head string
		want bool
	}{
		"extended attributes first": {pax.String(), true},
		"gzip":                      {"\x1f\x8b\x08 and so on", true},
		"text":                      {strings.Repeat("RUN x\n", 1000), false},
		"short text":                {"FROM scratch\n", false},
		"nothing":                   {"", false},
		"zeros":                     {strings.Repeat("\x00", 2048), false},
	} {
		if got := isArchive([]byte(test.head)[:min(len(test.head), archivePeek)]); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
