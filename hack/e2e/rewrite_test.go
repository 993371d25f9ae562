package e2e

import (
	"archive/tar"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/validate"
	bkclient "github.com/moby/buildkit/client"
	"github.com/slipwaybuild/slipway/solver/source/registry/registrytest"
)

// A step's files have the times of the build. With rewrite-timestamp the image has them no more, whoever builds it and when.
func TestRewrittenTimes(t *testing.T) {
	need(t, "runc", "busybox")
	r := registrytest.New(t, registrytest.Options{})
	base := layerOf(t, busyboxTar(t))
	late := layerOf(t, tarOf(t, tarReg("late", "x").at(time.Unix(1900000000, 0))))
	pushImage(t, r.Host+"/base:1", imageOf(t, base, late))
	src := write(t, map[string]string{"a": "a", "Dockerfile": "FROM " + r.Host + `/base:1
RUN mkdir /d && echo x > /d/f && ln /d/f /d/g && ln -s f /d/h && touch -d @1000 /d/old && mkfifo /d/i && rm /bin/vi
COPY a /a
WORKDIR /w
RUN true
`})
	const epoch = 1500000000
	args := map[string]string{"build-arg:SOURCE_DATE_EPOCH": "1500000000", "no-cache": "", "attest:sbom": ""}
	first := ""
	for i, how := range []string{"erofs", "unpacked"} {
		d := withLayers(t, how)
		for range 2 {
			answer := d.mustDockerfile(src, args, pushTo(r.Host+"/app:1", "rewrite-timestamp", "true"))
			if first == "" {
				first = answer["containerimage.digest"]
			}
			if got := answer["containerimage.digest"]; got != first {
				t.Errorf("build on %s: %s, first it was %s", how, got, first)
			}
		}
		if i > 0 {
			continue
		}
		if _, err := d.dockerfile(src, args, pushTo(r.Host+"/app:2", "rewrite-timestamp", "true", "unpack", "true")); err == nil || !strings.Contains(err.Error(), `"rewrite-timestamp" conflicts with "unpack"`) {
			t.Errorf("unpack as well: %v", err)
		}
		// What was rewritten is here like any other image.
		d.mustDockerfile(write(t, map[string]string{"Dockerfile": "FROM " + r.Host + "/app:1\nRUN test \"$(stat -c %Y /d/f)\" = 1500000000 && test \"$(stat -c %Y /late)\" = 1900000000\n"}), nil, pushTo(r.Host+"/on-top:1"))
	}
	i := pulledIndex(t, r.Host+"/app:1")
	img := pulled(t, r.Host+"/app@"+i.images["linux/amd64"].Digest.String())
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	if digestOf(t, layers[0]) != digestOf(t, base) || digestOf(t, layers[1]) != digestOf(t, late) {
		t.Error("the layers of the base image were changed")
	}
	names := map[string]int64{}
	for _, l := range layers[2:] {
		rc, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		for tr := tar.NewReader(rc); ; {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			names[h.Name] = h.ModTime.Unix()
			if h.ModTime.Unix() > epoch {
				t.Errorf("%s is of %s", h.Name, h.ModTime)
			}
		}
	}
	if names["d/old"] != 1000 || names["d/f"] != epoch {
		t.Errorf("times: %v", names)
	}
}

// Images in eStargz are pulled by everybody else as images in gzip.
func TestEStargzImage(t *testing.T) {
	need(t, "runc", "busybox", "skopeo", "umoci")
	d := startDaemon(t)
	r := registrytest.New(t, registrytest.Options{})
	pushImage(t, r.Host+"/base:1", imageOf(t, layerOf(t, busyboxTar(t))))
	src := write(t, map[string]string{"a": "a in estargz", "Dockerfile": "FROM " + r.Host + "/base:1\nCOPY a /a\nRUN echo made > /made\n"})
	d.mustDockerfile(src, nil, pushTo(r.Host+"/app:1", "compression", "estargz", "force-compression", "true"))
	img := pulled(t, r.Host+"/app:1")
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range m.Layers {
		if l.Annotations["containerd.io/snapshot/stargz/toc.digest"] == "" || l.Annotations["io.containers.estargz.uncompressed-size"] == "" || len(l.Annotations) != 2 {
			t.Errorf("annotations of layer %s: %v", l.Digest, l.Annotations)
		}
	}
	if err := validate.Image(img); err != nil {
		t.Errorf("the image is not valid: %v", err)
	}
	root := unpackImage(t, "docker://"+r.Host+"/app:1")
	if got := read(t, root, "a") + read(t, root, "made"); got != "a in estargzmade\n" {
		t.Errorf("the image holds %q", got)
	}
	// What was made and not pushed can be built on, too.
	d.mustDockerfile(src, nil, bkclient.ExportEntry{Type: bkclient.ExporterImage, Attrs: map[string]string{"name": "here.example.com/app:1", "compression": "estargz"}})
	out := t.TempDir()
	d.mustDockerfile(write(t, map[string]string{"Dockerfile": "FROM here.example.com/app:1\nRUN test -f /a && cp /made /again\n"}), nil, localOutput(out)[0])
	if got := read(t, out, "again"); got != "made\n" {
		t.Errorf("built on the image: %q", got)
	}
}
