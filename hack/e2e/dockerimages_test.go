package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/slipwaybuild/slipway/solver/source/registry/registrytest"
)

// says runs the client and fails the test unless it succeeds and prints all that is wanted.
func (c dockerCLI) says(t *testing.T, d *daemon, args []string, want ...string) result {
	t.Helper()
	r := c.ok(t, d, nil, args...)
	for _, w := range want {
		if !strings.Contains(r.all(), w) {
			t.Errorf("docker %s: no %q in\n%s", strings.Join(args, " "), w, r.all())
		}
	}
	return r
}

// fails runs the client and fails the test unless it fails and prints what is wanted.
func (c dockerCLI) fails(t *testing.T, d *daemon, want string, args ...string) {
	t.Helper()
	if r := c.run(t, d, nil, args...); r.code == 0 || !strings.Contains(r.errOut, want) {
		t.Errorf("docker %s: exit %d, no %q in\n%s", strings.Join(args, " "), r.code, want, r.all())
	}
}

// imageNames lists what docker images prints.
func (c dockerCLI) imageNames(t *testing.T, d *daemon, args ...string) string {
	t.Helper()
	r := c.ok(t, d, nil, append([]string{"images", "--format", "{{.Repository}}:{{.Tag}}"}, args...)...)
	list := strings.Fields(r.out)
	slices.Sort(list) // old clients have no order
	return strings.Join(list, " ")
}

func startImages(t *testing.T) *daemon {
	t.Helper()
	return startDaemon(t, "--config", engineForClassic(t))
}

// engineForClassic is a configuration under which clients without buildx are served, too.
func engineForClassic(t *testing.T) string {
	t.Helper()
	return filepath.Join(write(t, map[string]string{"c.toml": "[slipway]\nengineForClassic = true\n"}), "c.toml")
}

func TestDockerImages(t *testing.T) {
	eachDocker(t, func(t *testing.T, c dockerCLI) {
		d := startImages(t)
		c.withBase(t, d)
		dir := write(t, map[string]string{"Dockerfile": "FROM bb\nRUN echo made > /made\nLABEL kind=test\nENV Q=1\n"})
		r := c.ok(t, d, nil, "build", "-q", "-t", "app:1", dir)
		built := strings.TrimSpace(r.out)
		id := strings.TrimSpace(c.ok(t, d, nil, "images", "-q", "--no-trunc", "app:1").out)
		for _, ref := range []string{"app:1", built, id, id[7:19], built[7:19], "docker.io/library/app:1"} {
			if got := strings.TrimSpace(c.ok(t, d, nil, "inspect", "--format", "{{.Id}} {{.RepoTags}} {{.Config.Env}} {{.Config.Labels}} {{len .RootFS.Layers}} {{.Os}}", ref).out); !strings.HasPrefix(got, id+" [app:1] [") ||
				!strings.HasSuffix(got, "Q=1] map[kind:test] 3 linux") {
				t.Errorf("inspect %s: %s", ref, got)
			}
		}
		c.says(t, d, []string{"history", "app:1"}, id[7:19], "<missing>", "ENV Q=1", "echo made > /made", "COPY busybox")
		c.fails(t, d, "No such image: nosuch:latest", "history", "nosuch")
		c.fails(t, d, "nosuch", "inspect", "nosuch/with/slashes:1")

		c.ok(t, d, nil, "tag", "app:1", "app:2")
		c.ok(t, d, nil, "tag", id[7:19], "example.com/other/app")
		for filter, want := range map[string]string{
			"label=kind=test": "app:1 app:2 example.com/other/app:latest", "reference=*:2": "app:2", "before=app:1": "bb:latest", "dangling=true": "",
			"since=bb": "app:1 app:2 example.com/other/app:latest",
		} {
			if got := c.imageNames(t, d, "--filter", filter); got != want {
				t.Errorf("%s: %q, want %q", filter, got, want)
			}
		}
		c.fails(t, d, "invalid filter", "images", "--filter", "nosuch=1")
		c.fails(t, d, "must be forced", "rmi", id[7:19])
		c.says(t, d, []string{"rmi", "app:2"}, "Untagged: app:2")
		c.says(t, d, []string{"rmi", "-f", id}, "Untagged: app:1", "Untagged: example.com/other/app:latest", "Deleted: "+id)
		c.fails(t, d, "No such image", "rmi", "app:1")
		c.says(t, d, []string{"system", "df"}, "Images          1")
		c.says(t, d, []string{"system", "df", "-v"}, "bb")
		c.says(t, d, []string{"info"}, "Images: 1")
		c.fails(t, d, "does not search", "search", "x")

		// The image that loses its name dangles, and is what pruning is for.
		c.ok(t, d, nil, "build", "-q", "-t", "app:1", dir)
		c.ok(t, d, nil, "build", "-q", "-t", "app:1", "--label", "more=1", dir)
		if got := c.imageNames(t, d, "--filter", "dangling=true"); got != "<none>:<none>" {
			t.Errorf("dangling: %q", got)
		}
		c.says(t, d, []string{"image", "prune", "-f"}, "eleted: sha256:", "Total reclaimed space")
		if got := c.imageNames(t, d); got != "app:1 bb:latest" {
			t.Errorf("left: %q", got)
		}
		c.says(t, d, []string{"image", "prune", "-af", "--filter", "label=more"}, "ntagged: app:1")
		c.says(t, d, []string{"events", "--since", "10m", "--until=-2s", "--filter", "type=image"}, "image tag", "image untag", "image delete")
	})
}

func TestDockerSaveAndLoad(t *testing.T) {
	eachDocker(t, func(t *testing.T, c dockerCLI) {
		d := startImages(t)
		c.withBase(t, d)
		c.ok(t, d, nil, "tag", "bb", "example.com/bb:2")
		file := filepath.Join(t.TempDir(), "s.tar")
		c.ok(t, d, nil, "save", "-o", file, "bb", "example.com/bb:2")
		id := c.ok(t, d, nil, "images", "-q", "--no-trunc", "bb").out
		archive := read(t, file)
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		if _, err := z.Write([]byte(archive)); err != nil || z.Close() != nil {
			t.Fatal(err)
		}
		for _, in := range [][]byte{[]byte(archive), packed.Bytes()} {
			c.ok(t, d, nil, "rmi", "bb", "example.com/bb:2")
			if r := c.ok(t, d, in, "load"); !strings.Contains(r.out, "Loaded image: bb:latest\nLoaded image: example.com/bb:2\n") {
				t.Errorf("%s", r.all())
			}
			if got := c.ok(t, d, nil, "images", "-q", "--no-trunc", "bb").out; got != id {
				t.Errorf("loaded as %s, saved as %s", got, id)
			}
		}
		c.fails(t, d, "", "load", "-i", "/etc/passwd")
		c.fails(t, d, "No such image", "save", "-o", file, "nosuch")
		// What was loaded can be built on, though it was never in the cache.
		c.ok(t, d, nil, "builder", "prune", "-af")
		c.ok(t, d, nil, "build", "-t", "next", write(t, map[string]string{"Dockerfile": "FROM example.com/bb:2\nRUN echo x > /x\n"}))

		// A root file system as a tar.
		fs := tarOf(t, tarReg("hello", "hi"))
		r := c.ok(t, d, fs, "import", "-c", `CMD ["x"]`, "-m", "note", "-", "imp:1")
		c.says(t, d, []string{"inspect", "--format", "{{.Id}} {{.Config.Cmd}} {{.Comment}}", "imp:1"}, strings.TrimSpace(r.out)+" [x] note")
	})
}

func TestDockerLoadsArchivesOfOtherTools(t *testing.T) {
	need(t, "skopeo", "umoci")
	eachDocker(t, func(t *testing.T, c dockerCLI) {
		d := startImages(t)
		c.withBase(t, d)
		dir := t.TempDir()
		file := filepath.Join(dir, "s.tar")
		c.ok(t, d, nil, "save", "-o", file, "bb")
		tool := func(name string, args ...string) {
			t.Helper()
			cmd := exec.Command(name, args...)
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s %v: %v\n%s", name, args, err, out)
			}
		}
		tool("skopeo", "copy", "docker-archive:s.tar", "docker-archive:skopeo-docker.tar:sk/docker:1")
		tool("skopeo", "copy", "docker-archive:s.tar", "oci-archive:skopeo-oci.tar:sk/oci:1")
		tool("skopeo", "copy", "docker-archive:s.tar", "oci:layout:one")
		tool("umoci", "config", "--image", "layout:one", "--tag", "two", "--config.label", "by=umoci")
		tool("umoci", "gc", "--layout", "layout")
		tool("tar", "-C", "layout", "-cf", "umoci.tar", ".")
		for name, want := range map[string]string{
			"skopeo-docker.tar": "Loaded image: sk/docker:1", "skopeo-oci.tar": "Loaded image: sk/oci:1", "umoci.tar": "Loaded image ID: sha256:",
		} {
			r := c.says(t, d, []string{"load", "-i", filepath.Join(dir, name)}, want)
			ref := r.out[strings.LastIndex(strings.TrimSpace(r.out), " ")+1:]
			df := "FROM " + strings.TrimSpace(ref) + "\nRUN echo x > /x\n"
			if strings.HasPrefix(ref, "sha256:") { // a Dockerfile takes names only
				c.ok(t, d, nil, "tag", strings.TrimSpace(ref), "by/umoci")
				df = "FROM by/umoci\nRUN echo x > /x\n"
			}
			c.ok(t, d, nil, "build", "-q", write(t, map[string]string{"Dockerfile": df}))
		}
	})
}

func TestDockerPushAndPull(t *testing.T) {
	eachDocker(t, func(t *testing.T, c dockerCLI) {
		d := startImages(t)
		c.withBase(t, d)
		r := registrytest.New(t, registrytest.Options{})
		ref := r.Host + "/some/bb:1"
		c.ok(t, d, nil, "tag", "bb", ref)
		out := c.says(t, d, []string{"push", ref}, "The push refers to repository ["+r.Host+"/some/bb]", ": Pushed", "1: digest: sha256:").out
		digest := regexp.MustCompile(`sha256:[a-f0-9]{64}`).FindString(out)
		if got := digestOf(t, pulled(t, ref)); got != digest {
			t.Errorf("pushed %s, there is %s", digest, got)
		}
		c.says(t, d, []string{"push", ref}, "Layer already exists")
		c.says(t, d, []string{"images", "--digests"}, digest)
		c.ok(t, d, nil, "rmi", "-f", ref, "bb")
		c.ok(t, d, nil, "builder", "prune", "-af")
		c.says(t, d, []string{"pull", ref}, "1: Pulling from some/bb", "Digest: "+digest, "Status: Downloaded newer image for "+ref)
		c.says(t, d, []string{"pull", ref}, "Status: Image is up to date for "+ref)
		c.says(t, d, []string{"pull", r.Host + "/some/bb@" + digest}, "Digest: "+digest)
		c.says(t, d, []string{"pull", "-a", r.Host + "/some/bb"}, "1: Pulling from some/bb")
		pushImage(t, r.Host+"/new:1", imageOf(t, layerOf(t, tarOf(t, tarReg("f", "never seen here")))))
		c.says(t, d, []string{"pull", r.Host + "/new:1"}, ": Pulling fs layer", ": Download complete", ": Pull complete")
		c.fails(t, d, "not found", "pull", r.Host+"/nosuch:1")
		c.fails(t, d, "An image does not exist locally with the tag: "+r.Host+"/nosuch", "push", r.Host+"/nosuch:1")

		// FROM takes what is here, registry or not; and what was pulled needs none to be saved.
		r.Close()
		c.ok(t, d, nil, "build", "-q", write(t, map[string]string{"Dockerfile": "FROM " + ref + "\nRUN echo x > /x\n"}))
		c.ok(t, d, nil, "save", "-o", filepath.Join(t.TempDir(), "s.tar"), ref)
	})
}

func TestDockerPrivateRegistry(t *testing.T) {
	eachDocker(t, func(t *testing.T, c dockerCLI) {
		for _, kind := range []registrytest.Auth{registrytest.Basic, registrytest.Bearer} {
			t.Run(string(kind), func(t *testing.T) {
				d := startImages(t)
				c.withBase(t, d)
				r := registrytest.New(t, registrytest.Options{Auth: kind, Accounts: map[string]string{"me": "secret-word"}})
				ref := r.Host + "/private/bb:1"
				c.ok(t, d, nil, "tag", "bb", ref)
				c.fails(t, d, "denies access", "push", ref)
				c.fails(t, d, "denies access", "login", "-u", "me", "-p", "wrong", r.Host)
				c.says(t, d, []string{"login", "-u", "me", "-p", "secret-word", r.Host}, "Login Succeeded")
				c.ok(t, d, nil, "push", ref)
				img, err := remote.Image(tag(t, ref), remote.WithAuth(&authn.Basic{Username: "me", Password: "secret-word"}))
				if err != nil || validate.Image(img) != nil {
					t.Errorf("%v %v", err, validate.Image(img))
				}
				c.ok(t, d, nil, "rmi", ref)
				c.ok(t, d, nil, "pull", ref)
				c.ok(t, d, nil, "rmi", ref)
				// The account went with those requests and is nowhere now.
				if err := os.RemoveAll(filepath.Join(d.dir, "docker")); err != nil {
					t.Fatal(err)
				}
				c.fails(t, d, "pull access denied for "+r.Host+"/private/bb", "pull", ref)
				if b, err := exec.Command("grep", "-rl", "secret-word", d.root).Output(); len(b) > 0 {
					t.Errorf("the password is in %s (%v)", b, err)
				}
			})
		}
	})
}

func TestDistributionIsTold(t *testing.T) {
	d := startDaemon(t)
	r := registrytest.New(t, registrytest.Options{})
	digest := pushImage(t, r.Host+"/x:1", imageOf(t, layerOf(t, tarOf(t, tarReg("f", "x")))))
	res, err := unixClient(d.socket).Get("http://d/v1.41/distribution/" + r.Host + "/x:1/json")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var got struct {
		Descriptor struct{ Digest string }
		Platforms  []struct{ OS, Architecture string }
	}
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil || res.StatusCode != http.StatusOK || got.Descriptor.Digest != digest ||
		len(got.Platforms) != 1 || got.Platforms[0].Architecture != "amd64" {
		t.Errorf("%d %+v %v", res.StatusCode, got, err)
	}
}
