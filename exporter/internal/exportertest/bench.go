// Package exportertest is what tests of exporters stand on: real stores, a client that takes outputs, layers to export.
package exportertest

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/sessiontest"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/images"
	"github.com/slipwaybuild/slipway/solver/layers/layerstest"
)

// Bench is one test's stores. When the test ends they are closed, which fails the test if anything was not given back.
type Bench struct {
	testing.TB
	Layers *layers.Store
	Images *images.Store

	mu    sync.Mutex
	owned []*layers.Ref
}

// New opens stores. It skips the test where they cannot work.
func New(t testing.TB) *Bench {
	t.Helper()
	return NewIn(t, nil)
}

// NewIn is New with images in a backing, which stays the caller's.
func NewIn(t testing.TB, backing images.Backing) *Bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("keeping owners and mounting layers needs root")
	}
	b := &Bench{TB: t}
	root := t.TempDir()
	ctx := context.WithoutCancel(t.Context())
	var err error
	if b.Layers, err = layers.Open(ctx, layers.Options{Root: filepath.Join(root, "layers")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, r := range b.owned {
			_ = r.Release() // the test may have
		}
		if err := b.Layers.Close(); err != nil {
			t.Errorf("close layer store: %v", err)
		}
	})
	if b.Images, err = images.Open(ctx, images.Options{Root: filepath.Join(root, "images"), Layers: b.Layers, Backing: backing}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Images.Close(); err != nil {
			t.Errorf("close image store: %v", err)
		}
	})
	return b
}

// OK ends the test if err is not nil.
func (b *Bench) OK(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// Own releases r when the test ends.
func (b *Bench) Own(r *layers.Ref, err error) *layers.Ref {
	b.Helper()
	b.OK(err)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.owned = append(b.owned, r)
	return r
}

// Layer imports a layer of tar headers and [layerstest.File]s.
func (b *Bench) Layer(description string, entries ...any) *layers.Ref {
	b.Helper()
	data, _ := layerstest.Tar(b, entries...)
	return b.Own(b.Layers.Import(b.Context(), bytes.NewReader(data), layers.ImportOptions{Labels: layers.Labels{Description: description}}))
}

// Remote makes a lazy layer found through ref, gzipped, and the fetcher that has it.
func (b *Bench) Remote(ref string, entries ...any) (*layers.Ref, *Blobs) {
	b.Helper()
	data, diffID := layerstest.Tar(b, entries...)
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, err := w.Write(data)
	b.OK(errors.Join(err, w.Close()))
	d := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayerGzip, Digest: digest.FromBytes(z.Bytes()), Size: int64(z.Len())}
	blobs := &Blobs{}
	blobs.Add(d.Digest.String(), z.Bytes())
	return b.Own(b.Layers.AddRemote(b.Context(), layers.RemoteBlob{Ref: ref, Descriptor: d, DiffID: diffID})), blobs
}

// Step makes a directory layer of what fn changes in r mounted.
func (b *Bench) Step(r *layers.Ref, description string, fn func(root string)) *layers.Ref {
	b.Helper()
	u, err := b.Layers.NewUpper(b.Context())
	b.OK(err)
	m, err := b.Layers.Compose(b.Context(), r, u)
	b.OK(err)
	fn(m.Path())
	b.OK(m.Close())
	return b.Own(b.Layers.Seal(b.Context(), u, layers.ImportOptions{Labels: layers.Labels{Description: description}}))
}

// Stack puts layers over each other.
func (b *Bench) Stack(refs ...*layers.Ref) *layers.Ref {
	b.Helper()
	return b.Own(b.Layers.Stack(refs...), nil)
}

// Snapshot describes r mounted, see [layerstest.Snapshot].
func (b *Bench) Snapshot(r *layers.Ref) map[string]string {
	b.Helper()
	m, err := b.Layers.Compose(b.Context(), r, nil)
	b.OK(err)
	defer func() { b.OK(m.Close()) }()
	return layerstest.Snapshot(b, m.Path())
}

// Content lists the digests in the content store once what nobody holds is gone.
func (b *Bench) Content() map[string]content.Info {
	b.Helper()
	b.OK(b.Images.GC(b.Context()))
	found := map[string]content.Info{}
	b.OK(b.Images.Content().Walk(b.Context(), func(i content.Info) error {
		found[i.Digest.String()] = i
		return nil
	}))
	return found
}

// Client runs a session that offers the services.
func (b *Bench) Client(services ...session.Attachable) *session.Group {
	b.Helper()
	return sessiontest.Pair(b, services...)
}

// Amd64 and Arm64 are platforms.
var (
	Amd64 = ocispecs.Platform{OS: "linux", Architecture: "amd64"}
	Arm64 = ocispecs.Platform{OS: "linux", Architecture: "arm64"}
)

// Input is the result of a build for one platform, linux/amd64.
func Input(ref *layers.Ref, config string, sessions *session.Group) exporter.Input {
	in := exporter.Input{
		Platforms: []exporter.Platform{{ID: "linux/amd64", Platform: Amd64, Ref: ref}},
		Sessions:  sessions,
	}
	if config != "" {
		in.Platforms[0].Config = []byte(config)
	}
	return in
}

// Two is the result of a build for linux/amd64 and linux/arm64.
func Two(amd64, arm64 *layers.Ref, sessions *session.Group) exporter.Input {
	return exporter.Input{
		Platforms: []exporter.Platform{
			{ID: "linux/amd64", Platform: Amd64, Ref: amd64},
			{ID: "linux/arm64", Platform: Arm64, Ref: arm64},
		},
		MultiPlatform: true,
		Sessions:      sessions,
	}
}

// Rich is a stack of two blob layers and a directory layer with everything a tree can hold: owners, modes, times, links,
// devices, attributes, names removed and directories replaced.
func (b *Bench) Rich() *layers.Ref {
	b.Helper()
	data := layerstest.Text("bin/tool", "#!/bin/sh\n")
	data.Mode, data.Uid, data.Gid = 0o4755, 0, 7
	data.ModTime = time.Unix(1111111111, 123456789)
	tagged := layerstest.Text("etc/tagged", "x")
	tagged.PAXRecords = map[string]string{"SCHILY.xattr.user.note": "hello\x00there"}
	base := b.Layer("base",
		layerstest.Dir("bin", 0o755), data, layerstest.Link("bin/alias", "tool"), layerstest.HardLink("bin/twin", "bin/tool"),
		layerstest.Dir("etc", 0o750), tagged, layerstest.Text("etc/gone", "old"), layerstest.Text("etc/größe", "ü"),
		layerstest.Dir("var", 0o1777), layerstest.Dir("var/lib", 0o755), layerstest.Text("var/lib/a", "1"),
		layerstest.Node("null", 1, 3))
	over := b.Layer("over",
		layerstest.Dir("etc", 0o755), layerstest.Whiteout("etc/", "gone"), layerstest.Text("etc/new", "new"),
		layerstest.Dir("var", 0o1777), layerstest.Dir("var/lib", 0o700), layerstest.Text("var/lib/.wh..wh..opq", ""), layerstest.Text("var/lib/b", "2"))
	both := b.Stack(base, over)
	step := b.Step(both, "RUN step", func(root string) {
		b.OK(os.WriteFile(filepath.Join(root, "made"), bytes.Repeat([]byte("made "), 50000), 0o600))
		b.OK(os.Remove(filepath.Join(root, "etc/new")))
		b.OK(os.Chown(filepath.Join(root, "made"), 1000, 3000000))
		b.OK(os.Link(filepath.Join(root, "made"), filepath.Join(root, "made2")))
		b.OK(os.Chtimes(filepath.Join(root, "made"), time.Unix(1, 0), time.Unix(1234567890, 5)))
	})
	return b.Stack(base, over, step)
}
