package request

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestEpoch(t *testing.T) {
	repo := t.TempDir()
	for _, args := range [][]string{{"init", "-q"}, {"commit", "-q", "--allow-empty", "-m", "x"}} {
		cmd := exec.Command("git", append([]string{"-C", repo, "-c", "user.name=n", "-c", "user.email=e@x"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_COMMITTER_DATE=1234567890 +0000")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("needs git: %v\n%s", err, out)
		}
	}
	sub := filepath.Join(repo, "sub")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, flag, arg, env, context, want string
	}{
		{"none", "", "", "", repo, ""},
		{"environment", "", "", "3", repo, "3"},
		{"argument", "", "2", "3", repo, "2"},
		{"flag", "1", "2", "3", repo, "1"},
		{"git", "git", "2", "3", repo, "1234567890"},
		{"git below", "git", "", "", sub, "1234567890"},
		{"git elsewhere", "git", "", "", "https://example.com/r.git", "context"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv(epochArg, c.env)
			attrs := map[string]string{}
			if c.arg != "" {
				attrs["build-arg:"+epochArg] = c.arg
			}
			if err := setEpoch(t.Context(), attrs, Options{SourceDateEpoch: c.flag, Context: c.context}); err != nil {
				t.Fatal(err)
			}
			if got := attrs["build-arg:"+epochArg]; got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	for flag, context := range map[string]string{"yesterday": repo, "git": t.TempDir()} {
		if err := setEpoch(t.Context(), map[string]string{}, Options{SourceDateEpoch: flag, Context: context}); err == nil || !strings.Contains(err.Error(), "source-date-epoch") {
			t.Errorf("%s of %s: %v", flag, context, err)
		}
	}
}

func TestRewriteTimes(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]string{
		"type=image": "true", "type=oci,dest=x": "true", "type=image,rewrite-timestamp=false": "false", "type=image,unpack=true": "",
		"type=image,unpack=false": "true", "type=local,dest=x": "",
	} {
		out, err := parseOutput(spec, nil)
		if err != nil {
			t.Fatal(err)
		}
		rewriteTimes([]Output{out}, map[string]string{})
		if spec != "type=image,rewrite-timestamp=false" && out.Attrs["rewrite-timestamp"] != "" {
			t.Errorf("%s without a time: %v", spec, out.Attrs)
		}
		rewriteTimes([]Output{out}, map[string]string{"build-arg:" + epochArg: "1"})
		if got := out.Attrs["rewrite-timestamp"]; got != want {
			t.Errorf("%s: %q, want %q", spec, got, want)
		}
	}
}
