package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestBadInput(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	for _, test := range []struct {
		name, dockerfile string
		args             []string
		code             int
		want             []string
	}{
		{name: "unknown instruction", dockerfile: "FROM scratch\nFROBNICATE x\n", code: 1,
			want: []string{"Dockerfile:2", ">>> FROBNICATE x", "unknown instruction: FROBNICATE"}},
		{name: "syntax error", dockerfile: "FROM scratch\nENV\n", code: 1, want: []string{"Dockerfile:2", ">>> ENV", "ENV requires"}},
		{name: "unterminated heredoc", dockerfile: "FROM scratch\nRUN <<EOF\nx\n", code: 1, want: []string{"unterminated heredoc"}},
		{name: "empty", dockerfile: "", code: 1, want: []string{"cannot be empty"}},
		{name: "failing RUN", dockerfile: base + "RUN echo one; echo last words >&2; exit 42\n", code: 1,
			want: []string{"last words", ">>> RUN echo one", "exit code: 42"}},
		{name: "failing RUN, quiet", dockerfile: base + "RUN echo one; echo last words >&2; exit 42\n", args: []string{"-q"}, code: 1,
			want: []string{"last words", "exit code: 42"}},
		{name: "command not found", dockerfile: base + "RUN [\"/no/such/thing\"]\n", code: 1, want: []string{"/no/such/thing", "no such file"}},
		{name: "missing COPY source", dockerfile: "FROM scratch\nCOPY nope /\n", code: 1,
			want: []string{">>> COPY nope /", `"/nope": not found`}},
		{name: "COPY from outside", dockerfile: "FROM scratch\nCOPY ../../etc/passwd /\n", code: 1, want: []string{`"/etc/passwd": not found`}},
		{name: "unknown stage", dockerfile: "FROM scratch AS a\n", args: []string{"--target", "b"}, code: 1, want: []string{`target stage "b" could not be found`}},
		{name: "unreachable registry", dockerfile: "FROM 127.0.0.1:9/a/b:1\n", code: 1, want: []string{"127.0.0.1:9", "connection refused", ">>> FROM"}},
		{name: "unknown frontend image", dockerfile: "# syntax=example.com/other:1\nFROM scratch\n", code: 1, want: []string{"example.com/other:1"}},
		{name: "unknown exporter", dockerfile: "FROM scratch\n", args: []string{"-o", "type=bogus"}, code: 1, want: []string{`exporter "bogus" could not be found`}},
		{name: "no output type", dockerfile: "FROM scratch\n", args: []string{"-o", "dest=x,name=y"}, code: 125, want: []string{"type is required"}},
		{name: "bad tag", dockerfile: "FROM scratch\n", args: []string{"-t", "Not Valid"}, code: 1, want: []string{"Not Valid"}},
		{name: "bad platform", dockerfile: "FROM scratch\n", args: []string{"--platform", "bogus/nope/x/y"}, code: 1, want: []string{"bogus/nope/x/y"}},
		{name: "unknown flag", dockerfile: "FROM scratch\n", args: []string{"--bogus"}, code: 125, want: []string{"--bogus"}},
		{name: "entitlement not granted", dockerfile: base + "RUN --security=insecure true\n", code: 1, want: []string{"security.insecure is not allowed"}},
		{name: "entitlement the daemon forbids", dockerfile: base, args: []string{"--allow", "security.insecure"}, code: 1, want: []string{"security.insecure", "not allowed"}},
		{name: "cache export", dockerfile: base, args: []string{"--cache-to", "type=tape"}, code: 1, want: []string{`unknown cache exporter: "tape"`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := write(t, map[string]string{"Dockerfile": test.dockerfile})
			args := append([]string{"build", bb}, test.args...)
			if !strings.Contains(strings.Join(args, " "), "-o") && !strings.Contains(strings.Join(args, " "), "-t") {
				args = append(args, "-o", "type=cacheonly")
			}
			r := d.run(append(args, dir)...)
			if r.code != test.code {
				t.Errorf("exit %d, want %d", r.code, test.code)
			}
			for _, want := range test.want {
				if !strings.Contains(r.errOut, want) {
					t.Errorf("nothing says %q:\n%s", want, r.errOut)
				}
			}
			if t.Failed() {
				t.Logf("output:\n%s", r.all())
			}
		})
	}
	// After all of that the daemon builds.
	d.build(bb, "-o", "type=cacheonly", write(t, map[string]string{"Dockerfile": base + "RUN true\n"}))
}

func TestCommandLineMistakes(t *testing.T) {
	d := startDaemon(t)
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"build"}, "requires exactly 1 argument"},
		{[]string{"build", "/no/such/dir"}, "not found"},
		{[]string{"build", "-f", "-", "-"}, "can't use stdin for both"},
		{[]string{"frob"}, "unknown command"},
		{[]string{"build", "--progress", "fancy", "."}, "invalid progress mode"},
		{[]string{"build", "--secret", "id=x,wrong=y", "../../examples/hello"}, "wrong"},
	} {
		r := d.runContext(t.Context(), []byte{}, test.args...)
		if r.code != 125 || !strings.Contains(r.errOut, test.want) {
			t.Errorf("%v: exit %d, want 125 and %q:\n%s", test.args, r.code, test.want, r.errOut)
		}
	}
}

func TestNoRuntimeSaysWhatToInstall(t *testing.T) {
	config := filepath.Join(t.TempDir(), "c.toml")
	if err := os.WriteFile(config, []byte("[worker.oci]\nbinary = \"no-such-runtime\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, "--config", config)
	bb := busyboxContext(t)
	// What needs no runtime works.
	d.build(bb, "-o", t.TempDir(), write(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY --from=busybox busybox /b\n"}))
	r := d.run("build", bb, "-o", "type=cacheonly", write(t, map[string]string{"Dockerfile": base}))
	if r.code != 1 || !strings.Contains(r.errOut, "apt-get install runc") {
		t.Errorf("exit %d, want the package to install to be named:\n%s", r.code, r.errOut)
	}
}

func TestSocketInUse(t *testing.T) {
	d := startDaemon(t)
	second := exec.Command(filepath.Join(binaries, "slipwayd"), "--addr", "unix://"+d.socket, "--root", filepath.Join(d.dir, "other"))
	out, err := second.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "in use") {
		t.Errorf("a second daemon on one socket: %v\n%s", err, out)
	}
	third := exec.Command(filepath.Join(binaries, "slipwayd"), "--addr", "unix://"+d.socket+"2", "--root", d.root)
	out, err = third.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "lock") && !strings.Contains(string(out), "in use") {
		t.Errorf("a second daemon on one root: %v\n%s", err, out)
	}
	d.build(busyboxContext(t), "-o", "type=cacheonly", write(t, map[string]string{"Dockerfile": base}))
}

func TestBadConfiguration(t *testing.T) {
	need(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "c.toml")
	if err := os.WriteFile(file, []byte("[worker.oci]\nmaxUsedSpace = \"lots\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // a daemon that takes this file would run on
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(binaries, "slipwayd"), "--config", file, "--root", filepath.Join(dir, "r"), "--addr", "unix://"+filepath.Join(dir, "s")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), `"lots" is no size`) {
		t.Errorf("%v\n%s", err, out)
	}
}
