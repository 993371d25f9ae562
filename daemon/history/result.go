package history

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	controlapi "github.com/moby/buildkit/api/services/control"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Bounds on what is copied of a result: manifests, configs and attestations are small and few.
const (
	maxResultBlob  = 32 << 20
	maxResultBlobs = 500
)

// statement is the media type of in-toto statements, the layers of an attestation's manifest.
const statement = "application/vnd.in-toto+json"

// Result records what the exporter with this number made. What from holds of it, its layers aside, is copied beside the record and
// stays as long: whoever inspects a build later finds its manifests and attestations. What from does not have is left out;
// a result of which it has nothing is not recorded.
func (b *Build) Result(ctx context.Context, exporter int, desc ocispecs.Descriptor, from content.Provider) error {
	if b.start.Unrecorded {
		return nil
	}
	var copied []digest.Digest
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.blobs = append(b.blobs, copied...)
		if !slices.Contains(copied, desc.Digest) {
			return
		}
		info := b.info("")
		if info.Results == nil {
			info.Results = map[int64]*controlapi.Descriptor{}
		}
		info.Results[int64(exporter)] = apiDescriptor(desc)
	}()
	todo := []ocispecs.Descriptor{desc}
	for len(todo) > 0 && len(copied) < maxResultBlobs {
		d := todo[0]
		todo = todo[1:]
		if !smallPart(d) {
			continue
		}
		data, err := content.ReadBlob(ctx, from, d)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("copy %s of the result of build %s: %w", d.Digest, b.start.Ref, err)
		}
		kept, err := b.store.blobs.writeBytes(ctx, d.MediaType, data)
		if err != nil {
			return err
		}
		copied = append(copied, kept.Digest)
		if images.IsIndexType(d.MediaType) || images.IsManifestType(d.MediaType) {
			children, err := images.Children(ctx, b.store.blobs.store, d)
			if err != nil {
				return fmt.Errorf("read manifest %s of the result of build %s: %w", d.Digest, b.start.Ref, err)
			}
			todo = append(todo, children...)
		}
	}
	return nil
}

// smallPart tells manifests, configs and statements from layers.
func smallPart(d ocispecs.Descriptor) bool {
	if d.Size > maxResultBlob || d.Digest.Validate() != nil {
		return false
	}
	return images.IsIndexType(d.MediaType) || images.IsManifestType(d.MediaType) || images.IsConfigType(d.MediaType) || d.MediaType == statement
}
