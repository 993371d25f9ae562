package request

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipwaybuild/slipway/session/filesync"
)

func TestParseOutput(t *testing.T) {
	t.Parallel()
	for arg, want := range map[string]struct {
		typ    string
		attrs  map[string]string
		target bool
	}{
		"out":                                  {"local", nil, true},
		"-":                                    {"tar", nil, true},
		"type=local,dest=x":                    {"local", nil, true},
		"type=tar,dest=-":                      {"tar", nil, true},
		"type=image,name=a,push=true":          {"image", map[string]string{"name": "a", "push": "true"}, false},
		"type=registry,name=a":                 {"image", map[string]string{"name": "a", "push": "true"}, false},
		"type=cacheonly":                       {"cacheonly", nil, false},
		`type=image,"name=a,b"`:                {"image", map[string]string{"name": "a,b"}, false},
		"type=oci,dest=x.tar,compression=gzip": {"oci", map[string]string{"compression": "gzip"}, true},
		"TYPE=docker,Dest=y.tar":               {"docker", nil, true},
	} {
		out, err := parseOutput(arg, &bytes.Buffer{})
		if err != nil {
			t.Errorf("%s: %v", arg, err)
			continue
		}
		if out.Type != want.typ || !maps.Equal(out.Attrs, want.attrs) && len(out.Attrs)+len(want.attrs) > 0 || (out.Target != nil) != want.target {
			t.Errorf("%s: got %+v", arg, out)
		}
	}
	for arg, want := range map[string]string{
		"dest=x,name=y":           "type is required",
		"type=local":              "dest is required for local output",
		"type=tar":                "dest is required for tar output",
		"type=local,dest=-":       "standard output",
		"type=local,nonsense":     "invalid value nonsense",
		"type=image,dest=x":       "no meaning",
		"type=oci,dest=" + "/tmp": "is a directory",
	} {
		if _, err := parseOutput(arg, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got error %v, want %q", arg, err, want)
		}
	}
}

func FuzzParseOutput(f *testing.F) {
	f.Add("type=local,dest=x")
	f.Add(`"a,b"=c`)
	f.Fuzz(func(_ *testing.T, arg string) { _, _ = parseOutput(arg, io.Discard) })
}

func TestOutputFileAppearsWhenItIsWhole(t *testing.T) {
	t.Parallel()
	dest := filepath.Join(t.TempDir(), "sub", "x.tar")
	out, err := parseOutput("type=tar,dest="+dest, nil)
	if err != nil {
		t.Fatal(err)
	}
	w, err := out.Target.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "whole"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dest); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a file is there under its name: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(dest); err != nil || string(b) != "whole" {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestOutputFileThatIsNotWholeLeavesWhatWasThere(t *testing.T) {
	t.Parallel()
	dest := filepath.Join(t.TempDir(), "x.tar")
	if err := os.WriteFile(dest, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := parseOutput("type=oci,dest="+dest, nil)
	if err != nil {
		t.Fatal(err)
	}
	w, err := out.Target.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "half"); err != nil {
		t.Fatal(err)
	}
	cause := errors.New("the daemon went away")
	w.(filesync.Aborter).Abort(cause)
	if err := w.Close(); !errors.Is(err, cause) {
		t.Errorf("closing half a file: %v", err)
	}
	left, err := os.ReadDir(filepath.Dir(dest))
	if b, readErr := os.ReadFile(dest); err != nil || readErr != nil || len(left) != 1 || string(b) != "before" {
		t.Errorf("%d files are left, the old one reads %q (%v, %v)", len(left), b, err, readErr)
	}
}

func TestFrontendAttrs(t *testing.T) {
	t.Setenv("FROM_ENV", "e")
	t.Setenv(epochArg, "12")
	got, err := frontendAttrs(t.Context(), Options{
		BuildArgs: []string{"A=1", "FROM_ENV", "NOT_SET_ANYWHERE", "EMPTY="}, Labels: []string{"l=v", "bare"},
		Target: "t", Platforms: []string{"linux/amd64", "linux/arm64"}, NoCacheFilter: []string{"a", "b"}, Pull: true,
		Network: "none", AddHosts: []string{"h:1.2.3.4", "six=[2001:db8::1]", "v6:2001:db8::2"}, ShmSize: "64m", MemorySwap: "-1",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"build-arg:A": "1", "build-arg:FROM_ENV": "e", "build-arg:EMPTY": "", "build-arg:" + epochArg: "12",
		"label:l": "v", "label:bare": "", "target": "t", "platform": "linux/amd64,linux/arm64", "no-cache": "a,b",
		"image-resolve-mode": "pull", "force-network-mode": "none",
		"add-hosts": "h=1.2.3.4,six=2001:db8::1,v6=2001:db8::2", "shm-size": "67108864", "memswap": "-1",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	for _, bad := range []Options{
		{Network: "bridge"}, {AddHosts: []string{"nohost"}}, {ShmSize: "much"}, {Call: "dance"},
	} {
		if _, err := frontendAttrs(t.Context(), bad); err == nil {
			t.Errorf("%+v: no error", bad)
		}
	}
}

func TestDockerfileThatIsALink(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "real.Dockerfile")
	dir := t.TempDir()
	for _, path := range []string{outside, filepath.Join(dir, "Dockerfile.prod")} {
		if err := os.WriteFile(path, []byte("FROM scratch"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"out": outside, "in": "Dockerfile.prod", "nowhere": "absent"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"out": outside, "in": filepath.Join(dir, "in")} {
		s, err := findContext(Options{Context: dir, File: filepath.Join(dir, name)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := filepath.Join(s.dirs[dockerfileDir].Path, s.attrs["filename"]); got != want {
			t.Errorf("%s: the daemon reads %s, want %s", name, got, want)
		}
	}
	if _, err := findContext(Options{Context: dir, File: filepath.Join(dir, "nowhere")}, nil); err == nil {
		t.Error("a dangling link is taken for a Dockerfile")
	}
}

func TestFindContext(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := findContext(Options{Context: dir}, nil)
	if err != nil || s.dirs[contextDir].Path != dir || s.attrs["filename"] != "Dockerfile" {
		t.Errorf("directory: %+v, %v", s, err)
	}
	for _, url := range []string{"https://example.com/x.git#main:sub", "git@example.com:a/b", "github.com/a/b", "http://example.com/ctx.tar"} {
		s, err := findContext(Options{Context: url}, nil)
		if err != nil || s.attrs["context"] != url {
			t.Errorf("%s: %+v, %v", url, s, err)
		}
	}
	s, err = findContext(Options{Context: "-"}, strings.NewReader("FROM scratch\n"))
	if err != nil || s.dirs[dockerfileDir].FS == nil || s.upload != nil {
		t.Errorf("Dockerfile on stdin: %+v, %v", s, err)
	}
	s, err = findContext(Options{Context: "-"}, bytes.NewReader([]byte{0x1f, 0x8b, 0x08, 0, 0}))
	if err != nil || s.upload == nil {
		t.Errorf("archive on stdin: %+v, %v", s, err)
	}
	for _, bad := range []struct {
		o     Options
		stdin string
		want  string
	}{
		{Options{Context: "-", File: "-"}, "", "can't use stdin for both"},
		{Options{Context: "-", File: "x"}, "FROM scratch", "ambiguous Dockerfile source"},
		{Options{Context: filepath.Join(dir, "nope")}, "", "not found"},
		{Options{Context: filepath.Join(dir, "Dockerfile")}, "", "must be a directory"},
		{Options{Context: dir, File: filepath.Join(dir, "other")}, "", "no such file"},
		{Options{Context: "-"}, "", "empty"},
	} {
		if _, err := findContext(bad.o, strings.NewReader(bad.stdin)); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%+v: got %v, want %q", bad.o, err, bad.want)
		}
	}
}

func TestAnnotationKey(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"k": "annotation.k", "index:k": "annotation-index.k", "manifest[linux/amd64]:k": "annotation-manifest[linux/amd64].k", "a:b": "annotation.a:b",
	} {
		if got := annotationKey(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}
