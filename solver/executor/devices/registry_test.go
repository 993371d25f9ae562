package devices

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const twoVendors = `
cdiVersion: "0.6.0"
kind: "a.com/gpu"
annotations:
  org.mobyproject.buildkit.device.class: compute
containerEdits:
  env: ["ALL=1"]
devices:
- name: two
  containerEdits:
    env: ["TWO=1"]
- name: one
  annotations:
    org.mobyproject.buildkit.device.autoallow: "true"
  containerEdits:
    env: ["ONE=1"]
- name: three
  annotations:
    org.mobyproject.buildkit.device.class: other
  containerEdits:
    env: ["THREE=1"]
`

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, o Options) *Registry {
	t.Helper()
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestFind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a.yaml", twoVendors)
	list := open(t, Options{Dirs: []string{dir}}).List()
	for request, want := range map[string]string{
		"a.com/gpu=two":   "a.com/gpu=two",
		"a.com/gpu":       "a.com/gpu=one",
		"a.com/gpu=*":     "a.com/gpu=one a.com/gpu=three a.com/gpu=two",
		"compute":         "a.com/gpu=one a.com/gpu=two",
		"other":           "a.com/gpu=three",
		"a.com/gpu=four":  "",
		"a.com/gp":        "",
		"b.com/gpu":       "",
		"b.com/gpu=*":     "",
		"":                "",
		"=":               "",
		"a.com/gpu=one=x": "",
	} {
		if got := strings.Join(list.Find(request).Names(), " "); got != want {
			t.Errorf("%q means %q, want %q", request, got, want)
		}
	}
}

func TestWhoAllows(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a.yaml", twoVendors)
	for _, c := range []struct {
		auto []string
		want []string
	}{
		{nil, []string{"a.com/gpu=one"}},
		{[]string{"a.com/gpu=two"}, []string{"a.com/gpu=one", "a.com/gpu=two"}},
		{[]string{"a.com/gpu"}, []string{"a.com/gpu=one", "a.com/gpu=three", "a.com/gpu=two"}},
	} {
		list := open(t, Options{Dirs: []string{dir}, AutoAllowed: c.auto}).List()
		got := list.where(func(d Device) bool { return d.AutoAllow }).Names()
		if !slices.Equal(got, c.want) {
			t.Errorf("with %q: %q are allowed, want %q", c.auto, got, c.want)
		}
	}
}

func TestEditsOfADescriptionComeOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a.yaml", twoVendors)
	r := open(t, Options{Dirs: []string{dir}})
	edits, err := r.Edits([]string{"a.com/gpu=two", "a.com/gpu=one"})
	if err != nil {
		t.Fatal(err)
	}
	s := &specs.Spec{Process: &specs.Process{Env: []string{"ONE=0"}}}
	if err := edits.Apply(s); err != nil {
		t.Fatal(err)
	}
	slices.Sort(s.Process.Env)
	if got := strings.Join(s.Process.Env, " "); got != "ALL=1 ONE=1 TWO=1" {
		t.Errorf("the environment is %q", got)
	}
	var missing *MissingError
	if _, err := r.Edits([]string{"a.com/gpu=four"}); !errors.As(err, &missing) || missing.Name != "a.com/gpu=four" {
		t.Errorf("a device that is not there: %v", err)
	}
}

// Operators plug devices in, and out, while the daemon runs.
func TestChangesCountAtOnce(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "later")
	var log strings.Builder
	r := open(t, Options{Dirs: []string{dir}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if got := r.List(); len(got) != 0 {
		t.Errorf("in no directory: %v", got)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "a.yaml", twoVendors)
	if got := r.List(); len(got) != 3 {
		t.Errorf("after they came: %v", got)
	}
	write(t, dir, "broken.yaml", "kind: [")
	if got := r.List(); len(got) != 3 {
		t.Errorf("beside a broken description: %v", got)
	}
	r.List()
	if strings.Count(log.String(), "broken.yaml") == 0 || strings.Count(log.String(), "level=WARN") != 1 {
		t.Errorf("the broken description is to be told once:\n%s", log.String())
	}
	if err := os.Remove(filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	if got := r.List(); len(got) != 0 {
		t.Errorf("after they went: %v", got)
	}
}

func FuzzFind(f *testing.F) {
	dir := f.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(twoVendors), 0o600); err != nil {
		f.Fatal(err)
	}
	r, err := New(Options{Dirs: []string{dir}})
	if err != nil {
		f.Fatal(err)
	}
	list := r.List()
	for _, s := range []string{"a.com/gpu", "a.com/gpu=*", "compute", "=", "/", "a.com/=x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, request string) {
		for _, d := range list.Find(request) {
			kind, _, _ := strings.Cut(request, "=")
			if d.kind() != kind && d.Annotations[classAnnotation] != request {
				t.Errorf("%q means %s", request, d.Name)
			}
		}
	})
}
