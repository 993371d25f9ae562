package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestEngineClientContexts(t *testing.T) {
	need(t, "git")
	root := t.TempDir()
	gitRepository(t, root, "r.git")
	repos := gitServer(t, root, "")
	archive := tarball(t, regular("Dockerfile", "FROM scratch\nCOPY f /\n"), regular("f", "in an archive"), regular("other/Dockerfile", "FROM scratch\nCOPY f /g\n"))
	f := serveFiles(t, map[string][]byte{"/ctx.tar": archive, "/Dockerf": []byte("FROM scratch\nLABEL a=b\n")})
	dir := write(t, map[string]string{
		"Dockerfile": "FROM scratch\nCOPY . /\n", "a": "a file", "ignored": "x", ".dockerignore": "ignored\n", "sub/D": "FROM scratch\nCOPY a /from-sub\n",
	})
	zip := filepath.Join(t.TempDir(), "z")
	gzipTo(t, zip, archive)
	zipped := []byte(read(t, zip))
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	eachEngine(t, func(t *testing.T, e *engine) {
		e.build([]byte("FROM scratch\nLABEL a=b\n"), "-")
		e.build(nil, f.URL+"/Dockerf")
		for _, test := range []struct {
			name, file, want string
			stdin            []byte
			args             []string
		}{
			{"directory", "a", "a file", nil, []string{dir}},
			{"Dockerfile in it", "from-sub", "a file", nil, []string{"-f", filepath.Join(dir, "sub/D"), dir}},
			{"Dockerfile on stdin and a directory", "b", "a file", []byte("FROM scratch\nCOPY a /b\n"), []string{"-f", "-", dir}},
			{"tar on stdin", "f", "in an archive", archive, []string{"-"}},
			{"compressed tar on stdin", "f", "in an archive", zipped, []string{"-"}},
			{"Dockerfile in a tar on stdin", "g", "in an archive", archive, []string{"-f", "other/Dockerfile", "-"}},
			{"large tar on stdin", "big", string(big), tarball(t, regular("Dockerfile", "FROM scratch\nCOPY big /\n"), regular("big", string(big))), []string{"-"}},
			{"git", "version", "second", nil, []string{repos.URL + "/r.git#main"}},
			{"tar at a URL", "f", "in an archive", nil, []string{f.URL + "/ctx.tar"}},
		} {
			t.Run(test.name, func(t *testing.T) {
				out := t.TempDir()
				e.on(t).build(test.stdin, append([]string{"-o", out}, test.args...)...)
				if got := read(t, out, test.file); strings.TrimSpace(got) != strings.TrimSpace(test.want) {
					t.Errorf("%s is %.100q, want %.100q", test.file, got, test.want)
				}
				if slices.Contains(list(t, out), "ignored") {
					t.Error("an ignored file is there")
				}
			})
		}
		e.fails(125, "can't use stdin for both", archive, "-f", "-", "-")
		e.fails(125, "takes no Dockerfile from standard input for a context at a URL", []byte("FROM scratch\n"), "-f", "-", f.URL+"/ctx.tar")
	})
}

func TestEngineClientFlags(t *testing.T) {
	eachEngine(t, func(t *testing.T, e *engine) {
		e.withBase()
		dir := write(t, map[string]string{"Dockerfile": `FROM bb AS one
ARG A=unset
RUN echo $A > /arg; grep test /etc/hosts > /hosts || true
FROM one AS two
RUN echo two > /two
`})
		out := t.TempDir()
		e.build(nil, "--build-arg", "A=given", "--add-host", "example.test:10.1.2.3", "--add-host", "six.test=[2001:db8::1]", "--target", "one", "-o", out, dir)
		for file, want := range map[string][]string{"arg": {"given"}, "hosts": {"10.1.2.3", "2001:db8::1"}} {
			for _, one := range want {
				if got := read(t, out, file); !strings.Contains(got, one) {
					t.Errorf("%s is %q, want %q", file, got, one)
				}
			}
		}
		if slices.Contains(list(t, out), "two") {
			t.Error("a stage beyond the target was built")
		}
		e.build(nil, dir)
		if again := e.build(nil, dir); strings.Count(again.errOut, "CACHED") < 2 {
			t.Errorf("nothing is cached the second time:\n%s", again.errOut)
		}
		if r := e.build(nil, "--no-cache", dir); regexp.MustCompile(`(?m)RUN .*\n(#.*\n)*#[0-9]+ CACHED`).MatchString(r.errOut) {
			t.Errorf("--no-cache uses the cache:\n%s", r.errOut)
		}
		e.checkImage(dir, out)
		e.fails(1, "127.0.0.1:1", []byte("FROM 127.0.0.1:1/none\n"), "--pull", "-")
		if r := e.build([]byte("FROM bb\nRUN true\n"), "--memory", "64m", "-"); strings.Contains(r.errOut, "WARNING: Docker's daemon ignores --memory") != (e.name == "dockerd") {
			t.Errorf("a limit that only slipwayd heeds:\n%s", r.errOut)
		}
	})
}

// checkImage looks at what is said of an image and finds it by its names.
func (e *engine) checkImage(dir, out string) {
	e.t.Helper()
	iid, metadata := filepath.Join(out, "iid"), filepath.Join(out, "metadata")
	quiet := e.run(nil, "build", "--network", "none", "-q", "--label", "l=v", "-t", "named:1", "-t", "other", "--iidfile", iid, "--metadata-file", metadata, dir)
	id := strings.TrimSpace(quiet.out)
	if !regexp.MustCompile(`^sha256:[0-9a-f]{64}$`).MatchString(id) || read(e.t, iid) != id || quiet.errOut != "" {
		e.t.Errorf("-q printed %q, --iidfile has %q", quiet.all(), read(e.t, iid))
	}
	var md map[string]string
	if err := json.Unmarshal([]byte(read(e.t, metadata)), &md); err != nil || md["containerimage.digest"] != id {
		e.t.Errorf("metadata %v, %v", md, err)
	}
	e.build([]byte("FROM named:1\nRUN test -e /two\n"), "-")
	e.build([]byte("FROM other\nRUN test -e /two\n"), "-")
	if e.name != "dockerd" {
		return // what docker's command sees of slipwayd's images is tried elsewhere
	}
	if got := strings.TrimSpace(run(e.t, "docker", "-H", e.host, "image", "inspect", "-f", "{{.Id}} {{.Config.Labels.l}}", "other")); got != id+" v" {
		e.t.Errorf("docker finds the image as %q, want %q", got, id+" v")
	}
}

func TestEngineClientOutputs(t *testing.T) {
	eachEngine(t, func(t *testing.T, e *engine) {
		dir := dirWithBusybox(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY f /\n", "f": "text\n"})
		out := t.TempDir()
		e.build(nil, "-o", "type=tar,dest="+filepath.Join(out, "o.tar"), dir)
		if names := run(t, "tar", "tf", filepath.Join(out, "o.tar")); strings.TrimSpace(names) != "f" {
			t.Errorf("the tar holds %q", names)
		}
		if r := e.build(nil, "-o", "-", dir); !strings.Contains(r.out, "text\n") {
			t.Errorf("stdout is no tar of the result: %q", r.out)
		}
		e.build(nil, "-o", "type=cacheonly", "-t", "127.0.0.1:1/nobody", dir)
		e.fails(1, "127.0.0.1:1", []byte("FROM 127.0.0.1:1/nobody\n"), "-")
		e.build(nil, "-o", "type=image,name=by-output:1", dir)
		e.build([]byte("FROM by-output:1\n"), "-")
		several := []string{"-o", filepath.Join(out, "one"), "-o", "type=tar,dest=" + filepath.Join(out, "two.tar"), dir}
		if e.name == "dockerd" {
			e.fails(125, "multiple outputs not supported", nil, several...)
			e.fails(125, "cannot write archives of type oci", nil, "-o", "type=oci,dest="+filepath.Join(out, "x"), dir)
			e.fails(125, "cannot push what it builds", nil, "--push", "-t", "x", dir)
			e.fails(125, `no output of type "bogus"`, nil, "-o", "type=bogus", dir)
			return
		}
		e.build(nil, several...)
		if got := read(t, out, "one", "f") + run(t, "tar", "xOf", filepath.Join(out, "two.tar"), "f"); got != "text\ntext\n" {
			t.Errorf("two outputs hold %q", got)
		}
	})
}

// What has no words in the API is refused before the daemon hears of it: there is none.
func TestEngineClientRefusals(t *testing.T) {
	e := newEngine(t, "nobody", "unix:///nonexistent/docker.sock", func() string { return "" })
	need(t)
	dir := write(t, map[string]string{"Dockerfile": "FROM scratch\n"})
	for want, args := range map[string][]string{
		"--build-context":                   {"--build-context", "a=" + dir},
		"--annotation":                      {"--annotation", "a=b"},
		"--attest type=sbom":                {"--sbom", "true"},
		"--attest type=provenance":          {"--provenance", "mode=max"},
		"--no-cache-filter":                 {"--no-cache-filter", "a"},
		"--call or --check":                 {"--check"},
		"--allow security.insecure":         {"--allow", "security.insecure"},
		"--cache-to type=registry,ref=x":    {"--cache-to", "type=registry,ref=x"},
		"--cache-from type=local,src=x":     {"--cache-from", "type=local,src=x"},
		"--platform with several platforms": {"--platform", "linux/amd64,linux/arm64"},
	} {
		e.fails(125, want+" is beyond what Docker's API can ask", nil, append(args, dir)...)
	}
	e.fails(1, "connect to Docker's daemon at unix:///nonexistent/docker.sock", nil, "--provenance=false", "--cache-to", "type=inline", "--cache-from", "x", dir)
	for _, args := range [][]string{{"du"}, {"prune"}} {
		if r := e.run(nil, args...); r.code != 125 || !strings.Contains(r.errOut, "this asks slipwayd, and DOCKER_HOST means Docker's daemon") {
			t.Errorf("%v: exit %d\n%s", args, r.code, r.all())
		}
	}
}

func TestEngineClientFailures(t *testing.T) {
	eachEngine(t, func(t *testing.T, e *engine) {
		e.withBase()
		iid := filepath.Join(t.TempDir(), "iid")
		for _, test := range []struct{ dockerfile, want string }{
			{"FROM bb\nRUN echo before; exit 7\n", "exit code: 7"},
			{"FROM bb\nFROB\n", "unknown instruction: FROB"},
			{"FROM bb\nCOPY nope /\n", "/nope"},
			{"FROM 127.0.0.1:1/none\n", "127.0.0.1:1"},
		} {
			e.fails(1, test.want, []byte(test.dockerfile), "--iidfile", iid, "-")
			if r := e.run([]byte(test.dockerfile), "build", "-q", "--network", "none", "-"); r.code != 1 || !strings.Contains(r.errOut, test.want) || r.out != "" {
				t.Errorf("quietly: exit %d\n%s", r.code, r.all())
			}
		}
		if _, err := os.Stat(iid); err == nil {
			t.Error("a build that failed left an id")
		}
		e.fails(1, "nope", nil, "--target", "nope", write(t, map[string]string{"Dockerfile": "FROM scratch AS a\n"}))
		e.fails(1, "invalid reference format", []byte("FROM scratch\nLABEL a=b\n"), "-t", "UPPER", "-")
	})
}

func TestEngineClientSecretsAndSSH(t *testing.T) {
	need(t, "ssh-keygen", "ssh-agent", "ssh-add")
	key := filepath.Join(t.TempDir(), "key")
	run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	socket := startAgent(t, key)
	eachEngine(t, func(t *testing.T, e *engine) {
		e.withBase()
		dir := write(t, map[string]string{
			"Dockerfile": "FROM bb\nRUN --mount=type=secret,id=tok,required=true wc -c < /run/secrets/tok > /length\n" +
				"RUN --mount=type=ssh,required=true test -S $SSH_AUTH_SOCK && echo yes > /agent\n",
			"token": "hunter2hunter2",
		})
		out := t.TempDir()
		r := e.build(nil, "--secret", "id=tok,src="+filepath.Join(dir, "token"), "--ssh", "default="+socket, "-o", out, dir)
		if strings.TrimSpace(read(t, out, "length")) != "14" || strings.TrimSpace(read(t, out, "agent")) != "yes" || strings.Contains(r.all(), "hunter2") {
			t.Errorf("length %q, agent %q\n%s", read(t, out, "length"), read(t, out, "agent"), r.all())
		}
		e.fails(1, "tok", nil, "--no-cache", dir)
	})
}

func TestEngineClientInterrupted(t *testing.T) {
	eachEngine(t, func(t *testing.T, e *engine) {
		e.withBase()
		for i, context := range []string{"dockerfile", "tar", "endless tar"} {
			e.interrupt(context, fmt.Sprintf("28%d%d", i, len(e.name)))
		}
		e.build([]byte("FROM bb\nRUN true\n"), "-")
	})
}

// interrupt ends a build with Ctrl-C, while its step sleeps or its context still comes.
func (e *engine) interrupt(context, seconds string) {
	t := e.t
	t.Helper()
	dockerfile := "FROM bb\nRUN sleep " + seconds + "\n"
	archive := tarball(t, regular("Dockerfile", dockerfile))
	sleeps := func() bool { return len(processesNaming("sleep\x00"+seconds)) > 0 }
	said := filepath.Join(t.TempDir(), "stderr")
	log, err := os.Create(said)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := e.command(t.Context(), "build", "--network", "none", "--progress", "plain", "--no-cache", "-")
	cmd.Stderr = log
	begun := sleeps
	switch context {
	case "dockerfile":
		cmd.Stdin = strings.NewReader(dockerfile)
	case "tar":
		cmd.Stdin = bytes.NewReader(archive)
	default:
		// More is always to come.
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		defer r.Close()
		if _, err := w.Write(archive[:1024]); err != nil {
			t.Fatal(err)
		}
		cmd.Stdin = r
		begun = func() bool { return strings.Contains(read(t, said), "#1 ") }
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, context+": the build to begin", begun)
	_ = cmd.Process.Signal(syscall.SIGINT)
	killer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Signal(syscall.SIGQUIT) })
	_ = cmd.Wait()
	killer.Stop()
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("%s: exit %d\n%s", context, code, read(t, said))
	}
	waitFor(t, context+": the step to end", func() bool { return !sleeps() })
}
