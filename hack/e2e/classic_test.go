package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/google/go-containerregistry/pkg/authn"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/source/registry/registrytest"
)

// classic builds with docker's classic builder, and returns what it prints without the ids.
func (c dockerCLI) classic(t *testing.T, d *daemon, args ...string) (code int, out string) {
	t.Helper()
	cmd := c.command(t.Context(), d, append([]string{"build"}, args...)...)
	cmd.Env = append(cmd.Env, "DOCKER_BUILDKIT=0")
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	_ = cmd.Run() // how it ended is looked at
	return cmd.ProcessState.ExitCode(), text.String()
}

var (
	classicID    = regexp.MustCompile(`\b[0-9a-f]{12}\b`)
	classicNoise = regexp.MustCompile(`(?m)^(Sending build context.*|.*DEPRECATED.*|\s+Install the buildx.*|\s+BuildKit is currently.*|\s+environment.*|\s+https:.*)?\r*\n`)
)

func masked(out string) string {
	return classicNoise.ReplaceAllString(classicID.ReplaceAllString(out, "ID"), "")
}

// imageConfig reads an image's config by its id.
func (d *daemon) imageConfig(t *testing.T, id string) (c ocispecs.Image) {
	t.Helper()
	store := proxy.NewContentStore(d.client(t).ContentClient())
	info, err := store.Info(t.Context(), digest.Digest(id))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := content.ReadBlob(t.Context(), store, ocispecs.Descriptor{Digest: info.Digest, Size: info.Size})
	if err == nil {
		err = json.Unmarshal(raw, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestClassicTellsWhatDockerTells(t *testing.T) {
	eachDocker(t, func(t *testing.T, c dockerCLI) {
		d := startDaemon(t)
		c.withClassicBase(t, d)
		dir := write(t, map[string]string{
			"Dockerfile": "ARG tag=latest\nFROM bb:$tag\nARG A=1\nRUN echo out $A; echo err >&2\nWORKDIR /w\nCOPY f .\nLABEL k=v\nCMD cat f\n",
			"f":          "x",
		})
		iid := filepath.Join(t.TempDir(), "iid")
		code, out := c.classic(t, d, "-t", "c:1", "--iidfile", iid, "--build-arg", "A=2", "--build-arg", "unused=1", "--label", "z=y", dir)
		const ran = " ---> Running in ID\nRemoving intermediate container ID\n ---> ID\n"
		want := "Step 1/9 : ARG tag=latest\nStep 2/9 : FROM bb:$tag\n ---> ID\nStep 3/9 : ARG A=1\n" + ran +
			"Step 4/9 : RUN echo out $A; echo err >&2\n ---> Running in ID\nout 2\n\x1b[91merr\n\x1b[0mRemoving intermediate container ID\n ---> ID\n" +
			"Step 5/9 : WORKDIR /w\n" + ran + "Step 6/9 : COPY f .\n ---> ID\nStep 7/9 : LABEL k=v\n" + ran +
			"Step 8/9 : CMD cat f\n" + ran + "Step 9/9 : LABEL z=y\n" + ran +
			"[Warning] One or more build-args [unused] were not consumed\nSuccessfully built ID\nSuccessfully tagged c:1\n"
		// The two streams of a step have no order between them.
		got := strings.Replace(masked(out), "\x1b[91merr\n\x1b[0mout 2\n", "out 2\n\x1b[91merr\n\x1b[0m", 1)
		if code != 0 || got != want {
			t.Fatalf("exit %d\n%s\nwant\n%s\nthe daemon's log:\n%s", code, got, want, d.logText())
		}
		id := read(t, iid)
		cfg := d.imageConfig(t, id)
		if cfg.Config.WorkingDir != "/w" || !slices.Equal(cfg.Config.Cmd, []string{"/bin/sh", "-c", "cat f"}) || cfg.Config.Labels["z"] != "y" || cfg.Config.Labels["k"] != "v" {
			t.Errorf("%+v", cfg.Config)
		}
		var history []string
		for _, h := range cfg.History[len(cfg.History)-7:] {
			history = append(history, regexp.MustCompile(`[0-9a-f]{64}`).ReplaceAllString(h.CreatedBy, "SUM"))
		}
		wantHistory := []string{
			"/bin/sh -c #(nop)  ARG A=1", "|1 A=2 /bin/sh -c echo out $A; echo err >&2", "/bin/sh -c #(nop) WORKDIR /w",
			"/bin/sh -c #(nop) COPY file:SUM in . ", "/bin/sh -c #(nop)  LABEL k=v", `/bin/sh -c #(nop)  CMD ["/bin/sh" "-c" "cat f"]`, "/bin/sh -c #(nop)  LABEL z=y",
		}
		if !slices.Equal(history, wantHistory) {
			t.Errorf("history %q\nwant %q", history, wantHistory)
		}
		// Again: the same images. Not after a change, and not where the cache is not wanted.
		args := []string{"--iidfile", iid, "--build-arg", "A=2", "--label", "z=y", dir}
		if code, out := c.classic(t, d, args...); code != 0 || strings.Count(out, " ---> Using cache\n") != 7 || read(t, iid) != id {
			t.Errorf("exit %d, %s instead of %s\n%s", code, read(t, iid), id, out)
		}
		if code, out := c.classic(t, d, append(args, "--build-arg", "A=3")...); code != 0 || strings.Count(out, " ---> Using cache\n") != 1 || !strings.Contains(out, "out 3\n") {
			t.Errorf("exit %d\n%s", code, out)
		}
		if code, out := c.classic(t, d, append(args, "--no-cache")...); code != 0 || strings.Contains(out, "Using cache") || !strings.Contains(out, "out 2\n") {
			t.Errorf("exit %d\n%s", code, out)
		}
		if code, out := c.classic(t, d, append(args, "-q")...); code != 0 || strings.TrimSpace(masked(out)) != strings.TrimSpace(read(t, iid)) {
			t.Errorf("exit %d\n%q", code, out)
		}
	})
}

// withClassicBase builds "bb" with the classic builder.
func (c dockerCLI) withClassicBase(t *testing.T, d *daemon) {
	t.Helper()
	dir := dirWithBusybox(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n"})
	if code, out := c.classic(t, d, "-t", "bb", dir); code != 0 {
		t.Fatalf("exit %d\n%s\nthe daemon's log:\n%s", code, out, d.logText())
	}
}

func TestClassicFailuresAndQuirks(t *testing.T) {
	eachDocker(t, func(t *testing.T, c dockerCLI) {
		d := startDaemon(t)
		c.withClassicBase(t, d)
		for name, test := range map[string]struct {
			dockerfile string
			args       []string
			code       int
			want       []string
		}{
			"exit code":   {"FROM bb\nRUN echo before; exit 7\n", nil, 7, []string{"before\n", "The command '/bin/sh -c echo before; exit 7' returned a non-zero code: 7"}},
			"forced rm":   {"FROM bb\nRUN exit 7\n", []string{"--force-rm"}, 7, []string{"Removing intermediate container ID\nThe command"}},
			"missing":     {"FROM bb\nCOPY nope /\n", nil, 1, []string{"COPY failed: file not found in build context or excluded by .dockerignore: stat nope: file does not exist"}},
			"outside":     {"FROM bb\nCOPY ../x /\n", nil, 1, []string{"COPY failed: forbidden path outside the build context: ../x ()"}},
			"syntax":      {"FROM bb\nFROB\n", nil, 1, []string{"dockerfile parse error line 2: unknown instruction: FROB"}},
			"mounts":      {"FROM bb\nRUN --mount=type=cache,target=/c true\n", nil, 1, []string{"the --mount option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build images with BuildKit enabled"}},
			"target":      {"FROM bb\n", []string{"--target", "nope"}, 1, []string{"failed to reach build target nope in Dockerfile"}},
			"volumes":     {"FROM bb\nRUN mkdir /v && echo k > /v/kept\nVOLUME /v\nRUN echo g > /v/gone && ls /v\nRUN echo now: $(ls /v)\n", nil, 0, []string{"gone\nkept\n", "now: kept\n"}},
			"stages":      {"FROM bb AS one\nRUN echo unused\nFROM bb\nCOPY --from=bb /bin/busybox /copy\nRUN cmp /copy /bin/busybox && echo equal\n", nil, 0, []string{"unused\n", "equal\n"}},
			"shared args": {"FROM bb\nARG http_proxy\nRUN echo [$HTTP_PROXY]\n", []string{"--build-arg", "HTTP_PROXY=p"}, 0, []string{"[p]\n"}},
			"limits":      {"FROM bb\nRUN ulimit -n; grep made /etc/hosts\n", []string{"--ulimit", "nofile=99:100", "--add-host", "made:1.2.3.4", "--network", "none"}, 0, []string{"99\n", "1.2.3.4"}},
		} {
			dir := write(t, map[string]string{"Dockerfile": test.dockerfile})
			code, out := c.classic(t, d, append(test.args, dir)...)
			for _, want := range test.want {
				if code != test.code || !strings.Contains(masked(out), want) {
					t.Errorf("%s: exit %d, want %d and %q in\n%s", name, code, test.code, want, out)
				}
			}
		}
	})
}

// A stage may begin with the image of a step, by its id, and triggers of a base image run in its children.
func TestClassicImagesOfStepsAndTriggers(t *testing.T) {
	eachDocker(t, func(t *testing.T, c dockerCLI) {
		d := startDaemon(t)
		c.withClassicBase(t, d)
		dir := write(t, map[string]string{"Dockerfile": "FROM bb\nRUN echo s > /step\nONBUILD RUN cat /step\nONBUILD COPY f /\n", "f": "x"})
		_, out := c.classic(t, d, "-t", "parent", dir)
		ids := regexp.MustCompile(` ---> ([0-9a-f]{12})\n`).FindAllStringSubmatch(out, -1)
		if len(ids) != 4 {
			t.Fatalf("%s", out)
		}
		byStep := write(t, map[string]string{"Dockerfile": "FROM " + ids[1][1] + "\nRUN echo from: $(cat /step)\n"})
		if code, out := c.classic(t, d, byStep); code != 0 || !strings.Contains(out, "from: s\n") {
			t.Errorf("exit %d\n%s", code, out)
		}
		child := write(t, map[string]string{"Dockerfile": "FROM parent\nRUN cat /f\n", "f": "file\n"})
		if code, out := c.classic(t, d, child); code != 0 || !strings.Contains(out, "# Executing 2 build triggers\n") || !strings.Contains(out, "s\n") || !strings.Contains(out, "file\n") {
			t.Errorf("exit %d\n%s", code, out)
		}
	})
}

// Contexts that the daemon fetches: their .dockerignore counts.
func TestClassicRemoteContexts(t *testing.T) {
	d := startDaemon(t)
	root := t.TempDir()
	gitRepository(t, root, "r.git")
	repos := gitServer(t, root, "")
	files := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/Dockerfile":
			_, _ = io.WriteString(w, "FROM scratch\nADD "+"http://"+r.Host+"/file /got/\nLABEL from=url\n")
		case "/file":
			_, _ = io.WriteString(w, "hello\n")
		case "/context.tar":
			_, _ = w.Write(tarOf(t, tarReg("Dockerfile", "FROM scratch\nCOPY secret* public* /\n"), tarReg(".dockerignore", "secret\n"), tarReg("secret", "s"), tarReg("public", "p")))
		default:
			http.NotFound(w, r)
		}
	}))
	defer files.Close()
	for remote, want := range map[string][]string{
		repos.URL + "/r.git#v1":       {"Step 2/2 : COPY version /", "Successfully built"},
		repos.URL + "/r.git#main:sub": {"Step 2/2 : COPY inside /", "Successfully built"},
		files.URL + "/Dockerfile":     {`"Downloading","progressDetail":{"current":6,"total":6}`, "LABEL from=url", "Successfully built"},
		files.URL + "/context.tar":    {"Successfully built"},
		files.URL + "/nothing":        {"error downloading remote context " + files.URL + "/nothing", "404"},
	} {
		res, err := unixClient(d.socket).Post("http://docker/v1.41/build?remote="+url.QueryEscape(remote), "", nil)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		for _, w := range want {
			if !strings.Contains(string(b), w) {
				t.Errorf("%s: %d, want %q in\n%s", remote, res.StatusCode, w, b)
			}
		}
	}
	for body, want := range map[string]string{"": "Cannot locate specified Dockerfile: Dockerfile", "no tar": "archive/tar: invalid tar header"} {
		if code, _, failure := d.rawBuild(url.Values{}, []byte(body), nil); code != http.StatusInternalServerError || !strings.Contains(failure, want) {
			t.Errorf("%q: %d %s", body, code, failure)
		}
	}
}

// An image that is not here is pulled into the store, in sight of the client, and not again unless the client wants it.
func TestClassicPullsWhatItBeginsWith(t *testing.T) {
	eachDocker(t, func(t *testing.T, c dockerCLI) {
		d := startDaemon(t)
		r := registrytest.New(t, registrytest.Options{Auth: registrytest.Basic, Accounts: map[string]string{"me": "secret-word"}})
		ref := r.Host + "/some/base:1"
		me := &authn.Basic{Username: "me", Password: "secret-word"}
		digest := pushImage(t, ref, imageOf(t, layerOf(t, busyboxTar(t))), me)
		dir := write(t, map[string]string{"Dockerfile": "FROM " + ref + " AS one\nFROM scratch\nCOPY --from=" + ref + " /bin/busybox /copy\nFROM one\nLABEL a=b\n"})
		if code, out := c.classic(t, d, "-q", dir); code != 1 || !strings.Contains(out, "pull access denied for "+r.Host+"/some/base") {
			t.Errorf("without an account: exit %d\n%s", code, out)
		}
		c.says(t, d, []string{"login", "-u", "me", "-p", "secret-word", r.Host}, "Login Succeeded")
		code, out := c.classic(t, d, "-t", "made", dir)
		for _, want := range []string{"FROM " + ref + " AS one\n1: Pulling from some/base\n", "Pull complete", "Digest: " + digest + "\n", "Status: Downloaded newer image for " + ref + "\n ---> "} {
			if code != 0 || strings.Count(out, want) != 1 {
				t.Errorf("exit %d, want %q once in\n%s", code, want, out)
			}
		}
		c.says(t, d, []string{"images", "--digests"}, r.Host+"/some/base", digest)
		if code, out := c.classic(t, d, dir); code != 0 || strings.Contains(out, "Pulling") {
			t.Errorf("again: exit %d\n%s", code, out)
		}
		if code, out := c.classic(t, d, "--pull", dir); code != 0 || !strings.Contains(out, "Status: Image is up to date for "+ref+"\n ---> ") || strings.Count(out, "Using cache") != 2 {
			t.Errorf("--pull: exit %d\n%s", code, out)
		}
		r.Close()
		if code, out := c.classic(t, d, dir); code != 0 || strings.Contains(out, "Pulling") {
			t.Errorf("without the registry: exit %d\n%s", code, out)
		}
		if code, out := c.classic(t, d, "--pull", dir); code != 1 || !strings.Contains(out, r.Host) {
			t.Errorf("--pull without the registry: exit %d\n%s", code, out)
		}
	})
}
