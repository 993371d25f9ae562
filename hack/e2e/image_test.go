package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/slipwaybuild/slipway/solver/source/registry/registrytest"
)

// everything is a Dockerfile whose steps change what lies below in every way, and end with a list of all that is there then.
const everything = `FROM REGISTRY/base:1 AS other
RUN mkdir -p /src/sub/deep && echo a > /src/a.txt && echo b > /src/sub/b.log && echo c > /src/sub/deep/c.txt \
 && chmod 4711 /src/a.txt && chown 77:88 /src/sub && ln -s a.txt /src/link && ln /src/a.txt /src/hard && touch -d '2003-04-05 06:07:08' /src/sub/b.log

FROM REGISTRY/base:1 AS below
COPY --chmod=755 probe /listing/probe
RUN /listing/probe list / proc sys dev listing etc/hosts etc/resolv.conf etc/hostname > /listing/list

FROM REGISTRY/base:1
COPY --chmod=755 probe /bin/probe
RUN echo new > /new && chown 12:34 /new && chmod 2751 /new && probe setxattr /new user.color green && touch -d '2002-03-04 05:06:07' /new
RUN mkdir -p /made/in/here && chmod 1777 /made/in/here && ln -s ../target /made/link && ln /new /made/hard && ln -s /abs /made/abs \
 && chown -h 5:6 /made/abs && mkfifo -m 640 /made/fifo && mknod /made/null c 1 3 && probe socket /made/socket && touch "$(printf '/made/\303\274\n x')" && mkdir -m 700 /made/empty && probe setxattr /made/empty user.empty ''
RUN rm -rf /lower/deleted && rm /lower/deletedfile
RUN rm -rf /lower/replaced && mkdir /lower/replaced && echo x > /lower/replaced/fresh
RUN mv /lower/renamed /lower/moved && mv /lower/hard3 /lower/hard3moved
RUN rm -rf /lower/dir-to-file && echo f > /lower/dir-to-file && rm /lower/file-to-dir && mkdir /lower/file-to-dir && echo d > /lower/file-to-dir/f \
 && rm -rf /lower/dir-to-link && ln -s sticky /lower/dir-to-link && rm /lower/link-to-dir && mkdir /lower/link-to-dir && echo l > /lower/link-to-dir/f
RUN chmod 600 /lower/meta && chown 7:7 /lower/sticky && probe setxattr /lower/xattr user.color red && probe rmxattr /lower/xattr user.binary \
 && probe setxattr /lower/xdir user.more m
RUN echo end >> /lower/append && printf X | dd of=/lower/big bs=1 seek=100000 conv=notrunc 2>/dev/null && echo more >> /lower/hard1
RUN rm -rf /made/empty && mkdir /made/empty && touch /made/empty/not && rm /made/link && rm -rf /lower/opaque && mkdir /lower/opaque
WORKDIR /srv/dir
USER 1000:1000
RUN echo mine > /made/in/here/mine
USER 0
COPY --from=other /src /copied
COPY --from=other --exclude=**/*.log /src /excluded
COPY --from=other --parents /src/./sub/*/c.txt /parents/
COPY --chown=5:6 --chmod=0640 plain /ctx/a
COPY --link plain /linked/in/a
COPY --link --chown=3:3 sub /linked/sub
COPY sub/ plain rel/
ADD --chown=9:9 tree.tar.gz /added/
ADD plain /added/plain
COPY <<HERE /heredoc
written here
HERE
RUN mkdir /listing && chmod 777 /lower
RUN probe list / proc sys dev listing etc/hosts etc/resolv.conf etc/hostname > /listing/list
`

// unlisted is what a step shows of the daemon's rather than of the image.
var unlisted = []string{"proc", "sys", "dev", "listing", "etc/hosts", "etc/resolv.conf", "etc/hostname"}

func TestImageIsWhatStepsSaw(t *testing.T) {
	need(t, "runc", "busybox", "skopeo", "umoci", "tar")
	probe := buildProbe(t)
	for _, bottom := range []struct {
		name string
		tar  func(testing.TB) []byte
	}{{"busybox", busyboxTar}, {"debian", debianTar}} {
		t.Run(bottom.name, func(t *testing.T) {
			r := registrytest.New(t, registrytest.Options{})
			lower := lowerTars(t)
			pushImage(t, r.Host+"/base:1", imageOf(t, layerOf(t, bottom.tar(t)), layerOf(t, lower[0]), layerOf(t, lower[1])))
			below := listTree(t, probe, unpackImage(t, "docker://"+r.Host+"/base:1"))
			for _, how := range []string{"erofs", "unpacked"} {
				t.Run(how, func(t *testing.T) {
					d := withLayers(t, how)
					src := everythingContext(t, probe, r.Host)
					testBaseIsWhatStepsSee(t, d, src, below)
					testImageIsWhatStepsSaw(t, d, src, probe, below)
				})
			}
		})
	}
}

// withLayers starts a daemon that realises layers in one way.
func withLayers(t *testing.T, how string) *daemon {
	t.Helper()
	config := filepath.Join(t.TempDir(), "slipwayd.toml")
	if err := os.WriteFile(config, []byte("[slipway]\nlayers = \""+how+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return startDaemon(t, "--config", config)
}

// everythingContext is what everything is built from.
func everythingContext(t *testing.T, probe, registry string) string {
	t.Helper()
	src := write(t, map[string]string{
		"Dockerfile": strings.ReplaceAll(everything, "REGISTRY", registry), "plain": "plain", "sub/x": "x", "sub/deep/y": "y",
	})
	copyFile(t, probe, filepath.Join(src, "probe"))
	gzipTo(t, filepath.Join(src, "tree.tar.gz"), tarOf(t, tarDir("tree").with(0o700, 1, 1),
		tarReg("tree/f", "in a tar").with(0o4755, 2, 2, "user.added", "yes"), tarSym("tree/l", "f"), tarHard("tree/h", "tree/f")))
	return src
}

// testBaseIsWhatStepsSee compares what a step finds with what another tool unpacks from the registry.
func testBaseIsWhatStepsSee(t *testing.T, d *daemon, src string, below []string) {
	t.Helper()
	out := t.TempDir()
	d.build("--target", "below", "-o", out, src)
	agree(t, "base image", below, linesOf(t, out), untold)
}

func testImageIsWhatStepsSaw(t *testing.T, d *daemon, src, probe string, below []string) {
	t.Helper()
	out := t.TempDir()
	oci, docker, files, local := filepath.Join(out, "oci.tar"), filepath.Join(out, "docker.tar"), filepath.Join(out, "files.tar"), filepath.Join(out, "local")
	d.build("-t", "example.com/it:1", "-o", "type=oci,dest="+oci, "-o", "type=docker,dest="+docker,
		"-o", "type=tar,dest="+files, "-o", "type=local,dest="+local, src)

	image := unpackImage(t, "oci-archive:"+oci)
	want := linesOf(t, image)
	if len(want) < 150 {
		t.Fatalf("the step saw only %d files:\n%s", len(want), strings.Join(want, "\n"))
	}
	got := listTree(t, probe, image)
	agree(t, "OCI archive", want, got, untold)
	// Mounting files into /etc for a step has left no trace.
	if a, b := find(below, "etc"), find(got, "etc"); a != b {
		t.Errorf("nothing in /etc was changed:\n in the base %s\n there is    %s", a, b)
	}
	agree(t, "docker archive", want, listTree(t, probe, unpackImage(t, "docker-archive:"+docker)), untold)

	untarred := t.TempDir()
	command(t, "tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", files, "-C", untarred)
	agree(t, "tar", want, listTree(t, probe, untarred), untold)
	agree(t, "directory", want, listTree(t, probe, local), func(line string) string { return owned(untold(line)) })
}

var (
	mtime  = regexp.MustCompile(` mtime=\S+`)
	owners = regexp.MustCompile(` uid=\d+ gid=\d+|^"\." .*| security\.capability="[^"]*"`)
)

// untold removes what an image does not tell: times of the root and of directories that no layer has an entry for. The time of
// /etc is the daemon's doing while the step runs. Nobody can send a socket.
func untold(line string) string {
	name := nameOf(line)
	switch {
	case strings.Contains(line, " mode=14"):
		return ""
	case name == `"."`, name == `"etc"`, strings.HasPrefix(name, `"implied`) && strings.Contains(line, " mode=04"):
		return mtime.ReplaceAllString(line, "")
	}
	return line
}

// owned removes what belongs to the user whose directory the files are in.
func owned(line string) string { return owners.ReplaceAllString(line, "") }

// linesOf is the list that the last step left.
func linesOf(t *testing.T, root string) []string {
	t.Helper()
	return strings.Split(strings.TrimSpace(read(t, root, "listing/list")), "\n")
}

// unpackImage is the root file system that umoci makes of an image that skopeo reads.
func unpackImage(t *testing.T, image string) string {
	t.Helper()
	dir := t.TempDir()
	command(t, "skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", image, "oci:"+dir+"/layout:it")
	command(t, "umoci", "unpack", "--image", dir+"/layout:it", dir+"/bundle")
	return filepath.Join(dir, "bundle", "rootfs")
}

func command(t *testing.T, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return string(out)
}

func listTree(t *testing.T, probe, root string) []string {
	t.Helper()
	return strings.Split(strings.TrimSpace(command(t, probe, append([]string{"list", root}, unlisted...)...)), "\n")
}

// agree compares lists of files line by line, without what strip takes away. A line of which nothing is left has no file.
func agree(t *testing.T, what string, want, got []string, strip func(string) string) {
	t.Helper()
	index := map[string]string{}
	for _, line := range got {
		if line = strip(line); line != "" {
			index[nameOf(line)] = line
		}
	}
	for _, line := range want {
		if line = strip(line); line == "" {
			continue
		}
		name := nameOf(line)
		switch have, ok := index[name]; {
		case !ok:
			t.Errorf("%s: not there: %s", what, line)
		case have != line:
			t.Errorf("%s:\n want     %s\n there is %s", what, line, have)
		}
		delete(index, name)
	}
	for _, line := range index {
		t.Errorf("%s: too much: %s", what, line)
	}
}

// nameOf is the quoted name that a line begins with.
func nameOf(line string) string {
	name, _, _ := strings.Cut(line, " mode=")
	return name
}

// find is the line of a file.
func find(list []string, name string) string {
	for _, line := range list {
		if nameOf(line) == strconv.Quote(name) {
			return line
		}
	}
	return ""
}

func TestTwoPlatforms(t *testing.T) {
	need(t, "skopeo", "umoci")
	d := startDaemon(t)
	src := write(t, map[string]string{
		"Dockerfile": "ARG TARGETARCH\nFROM scratch AS amd64\nCOPY a /arch\nFROM scratch AS arm64\nCOPY b /arch\nFROM ${TARGETARCH}\nCOPY common /\n",
		"a":          "this is amd64", "b": "this is arm64", "common": "everywhere",
	})
	out := t.TempDir()
	archive, local, files := filepath.Join(out, "oci.tar"), filepath.Join(out, "local"), filepath.Join(out, "files.tar")
	d.build("--platform", "linux/amd64,linux/arm64", "-o", "type=oci,dest="+archive, "-o", local, "-o", "type=tar,dest="+files, src)
	untarred := filepath.Join(out, "untarred")
	if err := os.Mkdir(untarred, 0o755); err != nil {
		t.Fatal(err)
	}
	command(t, "tar", "-xf", files, "-C", untarred)
	for _, arch := range []string{"amd64", "arm64"} {
		layout := filepath.Join(out, "layout-"+arch)
		command(t, "skopeo", "--insecure-policy", "--override-os", "linux", "--override-arch", arch, "copy", "--quiet", "oci-archive:"+archive, "oci:"+layout+":it")
		command(t, "umoci", "unpack", "--image", layout+":it", layout+"/bundle")
		for _, root := range []string{layout + "/bundle/rootfs", filepath.Join(local, "linux_"+arch), filepath.Join(untarred, "linux_"+arch)} {
			if got := read(t, root, "arch"); got != "this is "+arch {
				t.Errorf("%s: %q", root, got)
			}
			if got := read(t, root, "common"); got != "everywhere" {
				t.Errorf("%s: %q", root, got)
			}
		}
	}
	index, err := layout.ImageIndexFromPath(unarchive(t, archive))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	r := d.run("build", "--platform", "linux/amd64,linux/arm64", "-o", "type=docker,dest="+filepath.Join(out, "docker.tar"), src)
	if r.code != 1 || !strings.Contains(r.errOut, "docker") {
		t.Errorf("docker archives hold one platform: exit %d\n%s", r.code, r.errOut)
	}
}

// unarchive is the directory that an archive of an OCI layout holds.
func unarchive(t *testing.T, archive string) string {
	t.Helper()
	dir := t.TempDir()
	command(t, "tar", "-xf", archive, "-C", dir)
	return dir
}

// Neither the time of the build nor the daemon is part of an image. Steps that write times, be it by making a file, do so still.
func TestReproducible(t *testing.T) {
	need(t, "busybox")
	r := registrytest.New(t, registrytest.Options{})
	pushImage(t, r.Host+"/base:1", imageOf(t, layerOf(t, busyboxTar(t))))
	src := write(t, map[string]string{"a": "a", "sub/b": "b", "Dockerfile": "FROM " + r.Host + `/base:1 AS made
RUN mkdir -p /d/e && echo x > /d/e/f && ln /d/e/f /d/g && ln -s g /d/h && mkfifo /d/i && find /d -exec touch -h -d @1000000000 {} +
FROM ` + r.Host + `/base:1
WORKDIR /copied/to
COPY a sub ./
COPY --link a /
COPY --from=made /d /made
RUN mkdir -p /d/e && echo x > /d/e/f && ln /d/e/f /d/g && ln -s g /d/h && rm /bin/vi && find /d /bin -exec touch -h -d @1000000000 {} +
WORKDIR /w/x
`})
	first := map[string]string{}
	for _, how := range []string{"erofs", "erofs", "unpacked"} {
		d := withLayers(t, how)
		for _, output := range []string{"type=image", "type=oci,dest=" + filepath.Join(t.TempDir(), "x.tar")} {
			md := filepath.Join(t.TempDir(), "md.json")
			d.build("--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1234567890", "-t", "example.com/r:1", "--metadata-file", md, "-o", output, src)
			var m map[string]any
			if err := json.Unmarshal([]byte(read(t, md)), &m); err != nil {
				t.Fatal(err)
			}
			digest, _ := m["containerimage.digest"].(string)
			kind, _, _ := strings.Cut(output, ",")
			if first[kind] == "" {
				first[kind] = digest
			}
			if digest == "" || digest != first[kind] {
				t.Errorf("%s on %s: %s, first it was %s", kind, how, digest, first[kind])
			}
		}
	}
}
