package manifest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/source/image/manifest"
)

// documents is content by digest. As a Getter it gives anything for a digest that it does not know, as a registry might.
type documents map[digest.Digest][]byte

func (d documents) add(mediaType, doc string) ocispecs.Descriptor {
	id := digest.FromString(doc)
	d[id] = []byte(doc)
	return ocispecs.Descriptor{MediaType: mediaType, Digest: id, Size: int64(len(doc))}
}

func (d documents) get(_ context.Context, desc ocispecs.Descriptor) ([]byte, error) {
	b, ok := d[desc.Digest]
	if !ok {
		return nil, fmt.Errorf("%s: %w", desc.Digest, errdefs.ErrNotFound)
	}
	return b, nil
}

var amd64 = ocispecs.Platform{OS: "linux", Architecture: "amd64"}

const (
	manifestType = ocispecs.MediaTypeImageManifest
	indexType    = ocispecs.MediaTypeImageIndex
	d1           = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	d2           = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
	gzLayer      = `{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"` + d1 + `","size":10}`
)

func (d documents) manifest(config, layers string) ocispecs.Descriptor {
	c := d.add(ocispecs.MediaTypeImageConfig, config)
	return d.add(manifestType, fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[%s]}`, c.MediaType, c.Digest, c.Size, layers))
}

func TestRefusals(t *testing.T) {
	docs := documents{}
	config := `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["` + d2 + `"]}}`
	for _, tt := range []struct {
		name string
		root ocispecs.Descriptor
		want string
	}{
		{"no JSON", docs.add(manifestType, `<html>`), "not a container image"},
		{"empty", docs.add(manifestType, ``), "not a container image"},
		{"empty object", docs.add("", `{}`), "neither layers nor manifests"},
		{"schema 1 by version", docs.add("", `{"schemaVersion":1}`), "schema 1"},
		{"schema 1 by layers", docs.add(manifestType, `{"schemaVersion":2,"fsLayers":[]}`), "schema 1"},
		{"index and image at once", docs.add(manifestType, `{"manifests":[],"config":{},"layers":[]}`), "an index and an image at once"},
		{"manifest that is an index", docs.add(manifestType, `{"manifests":[]}`), "is not the"},
		{"index that is a manifest", docs.add(indexType, `{"config":{},"layers":[]}`), "is not the"},
		{"no config", docs.add(manifestType, `{"layers":[]}`), "without config"},
		{"config without digest", docs.add(manifestType, `{"config":{},"layers":[]}`), "digest"},
		{"layer of negative size", docs.manifest(config, strings.Replace(gzLayer, ":10", ":-10", 1)), "size -10"},
		{"layer with an evil digest", docs.manifest(config, strings.Replace(gzLayer, d1, "sha256:../../etc", 1)), "digest"},
		{"no such platform", docs.add(indexType, `{"manifests":[]}`), "no image for linux/amd64"},
		{"evil digest in an index", docs.add(indexType, `{"manifests":[{"digest":"../x"}]}`), "digest"},
		{"too many layers", docs.manifest(config, strings.Repeat(gzLayer+",", 1000)+gzLayer), "1001 layers"},
		{"counts that differ", docs.manifest(config, ""), "lists 0 layers"},
		{"evil diffID", docs.manifest(strings.Replace(config, d2, "sha256:x", 1), gzLayer), "diffID"},
		{"config that is no JSON", docs.manifest("tar", gzLayer), "config"},
		{"layer of an unknown kind", docs.manifest(config, strings.Replace(gzLayer, "+gzip", "+xz", 1)), `+xz`},
		{"config that is not there", docs.add(manifestType, `{"config":{"digest":"`+d1+`","size":1},"layers":[]}`), "not found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			img, err := manifest.Read(t.Context(), docs.get, tt.root, amd64)
			if err == nil {
				t.Fatalf("no error: %+v", img)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q does not say %q", err, tt.want)
			}
		})
	}
}

func TestNestedIndexes(t *testing.T) {
	docs := documents{}
	d := docs.manifest(`{"os":"linux","architecture":"amd64"}`, "")
	wrapped := func() ocispecs.Descriptor {
		return docs.add(indexType, fmt.Sprintf(`{"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, d.MediaType, d.Digest, d.Size))
	}
	for range 2 {
		d = wrapped()
	}
	img, err := manifest.Read(t.Context(), docs.get, d, amd64)
	if err != nil {
		t.Fatal(err)
	}
	if len(img.Path) != 2 || img.Root.Digest != d.Digest || len(img.Digests()) != 4 {
		t.Errorf("path is %v, digests %v", img.Path, img.Digests())
	}
	for range 10 {
		d = wrapped()
	}
	if _, err := manifest.Read(t.Context(), docs.get, d, amd64); err == nil {
		t.Error("indexes without end are followed")
	}
}

func TestArtifactTypes(t *testing.T) {
	docs := documents{}
	d := docs.manifest(`{"os":"linux","architecture":"amd64"}`, "")
	index := func(artifactType string) ocispecs.Descriptor {
		return docs.add(indexType, fmt.Sprintf(`{"manifests":[{"mediaType":%q,"digest":%q,"size":%d,"artifactType":%q,"platform":{"os":"linux","architecture":"amd64"}}]}`,
			d.MediaType, d.Digest, d.Size, artifactType))
	}
	for _, image := range []string{ocispecs.MediaTypeImageConfig, "application/vnd.docker.container.image.v1+json"} {
		if img, err := manifest.Read(t.Context(), docs.get, index(image), amd64); err != nil || img.Manifest.Digest != d.Digest {
			t.Errorf("%s: %v, %v", image, img, err)
		}
	}
	var none *manifest.NoMatchError
	if _, err := manifest.Read(t.Context(), docs.get, index("application/spdx+json"), amd64); !errors.As(err, &none) {
		t.Errorf("what is no image was taken for one: %v", err)
	}
}

func TestImageForOnePlatformServesAll(t *testing.T) {
	docs := documents{}
	d := docs.manifest(`{"os":"linux","architecture":"s390x"}`, "")
	if _, err := manifest.Read(t.Context(), docs.get, d, amd64); err != nil {
		t.Error(err)
	}
}

func TestHistoryNamesLayers(t *testing.T) {
	docs := documents{}
	d := docs.manifest(`{"history":[{"created_by":"ADD"},{"created_by":"ENV","empty_layer":true}],"rootfs":{"diff_ids":["`+d2+`"]}}`, gzLayer)
	img, err := manifest.Read(t.Context(), docs.get, d, amd64)
	if err != nil {
		t.Fatal(err)
	}
	if got := manifest.Blobs("ref", img.Layers); len(got) != 1 || got[0].CreatedBy != "ADD" || got[0].DiffID != d2 || got[0].Descriptor.Digest != d1 {
		t.Errorf("layers are %+v", got)
	}
}

func TestThrough(t *testing.T) {
	store, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	text := []byte("text")
	d := ocispecs.Descriptor{Digest: digest.FromBytes(text), Size: int64(len(text))}
	opened := 0
	gives := func(b []byte) manifest.Opener {
		return func(context.Context, ocispecs.Descriptor) (io.ReadCloser, error) {
			opened++
			return io.NopCloser(bytes.NewReader(b)), nil
		}
	}
	get := func(open manifest.Opener, d ocispecs.Descriptor) ([]byte, error) {
		return manifest.Through(store, open)(t.Context(), d)
	}
	if _, err := get(nil, d); !errdefs.IsNotFound(err) {
		t.Errorf("no origin: %v", err)
	}
	var wrong *manifest.DigestError
	if _, err := get(gives([]byte("other")), d); !errors.As(err, &wrong) {
		t.Errorf("wrong bytes: %v", err)
	}
	if _, err := store.Info(t.Context(), d.Digest); !errdefs.IsNotFound(err) {
		t.Errorf("wrong bytes were stored: %v", err)
	}
	opened = 0
	for range 2 {
		if b, err := get(gives(text), d); err != nil || string(b) != "text" {
			t.Errorf("%q, %v", b, err)
		}
	}
	if opened != 1 {
		t.Errorf("opened %d times, want once and then from the store", opened)
	}
	large := ocispecs.Descriptor{Digest: digest.FromString("large"), Size: manifest.MaxSize + 1}
	if _, err := get(gives(text), large); err == nil {
		t.Error("a large document is read")
	}
	large.Size = 1
	endless := func(context.Context, ocispecs.Descriptor) (io.ReadCloser, error) {
		return io.NopCloser(io.LimitReader(zeros{}, 2*manifest.MaxSize)), nil
	}
	if _, err := get(endless, large); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a document larger than it says: %v", err)
	}
	// In the store, by whatever way it came there.
	huge := make([]byte, manifest.MaxSize+1)
	hd := ocispecs.Descriptor{Digest: digest.FromBytes(huge), Size: int64(len(huge))}
	if err := content.WriteBlob(t.Context(), store, "huge", bytes.NewReader(huge), hd); err != nil {
		t.Fatal(err)
	}
	if _, err := get(nil, ocispecs.Descriptor{Digest: hd.Digest}); err == nil {
		t.Error("a large document is read from the store")
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestParseLimit(t *testing.T) {
	for s, want := range map[string]int{"": 0, "1": 1, "20": 20} {
		if n, err := manifest.ParseLimit(s); err != nil || n != want {
			t.Errorf("%q: %d, %v", s, n, err)
		}
	}
	for _, s := range []string{"0", "-1", "x", "1.5"} {
		if n, err := manifest.ParseLimit(s); err == nil {
			t.Errorf("%q: %d, want an error", s, n)
		}
	}
}

// FuzzRead follows whatever documents there are; it must end, and an image it gives must hold together.
func FuzzRead(f *testing.F) {
	docs := documents{}
	for _, d := range []ocispecs.Descriptor{
		docs.manifest(`{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["`+d2+`"]}}`, gzLayer),
		docs.add(indexType, `{"manifests":[{"mediaType":"`+manifestType+`","digest":"`+d1+`","size":3,"platform":{"os":"linux","architecture":"arm","variant":"v7"}}]}`),
		docs.add("", `{"schemaVersion":1,"fsLayers":[]}`),
		docs.add("", `{"manifests":null,"mediaType":"`+indexType+`"}`),
	} {
		f.Add(docs[d.Digest], []byte(`{"rootfs":{"diff_ids":["`+d2+`"]},"history":[{}]}`), d.MediaType)
	}
	f.Fuzz(func(t *testing.T, root, other []byte, mediaType string) {
		d := ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(root), Size: int64(len(root))}
		get := func(_ context.Context, asked ocispecs.Descriptor) ([]byte, error) {
			if asked.Digest == d.Digest {
				return root, nil
			}
			return other, nil
		}
		img, err := manifest.Read(t.Context(), get, d, amd64)
		if err != nil {
			if err.Error() == "" {
				t.Error("error without text")
			}
			return
		}
		var c ocispecs.Image
		if err := json.Unmarshal(img.ConfigJSON, &c); err != nil {
			t.Errorf("config is no JSON: %v", err)
		}
		for _, l := range img.Layers {
			if l.DiffID.Validate() != nil || l.Descriptor.Digest.Validate() != nil || l.Descriptor.Size < 0 {
				t.Errorf("layer %+v", l)
			}
		}
		for _, id := range img.Digests() {
			if id.Validate() != nil {
				t.Errorf("digest %q", id)
			}
		}
	})
}
