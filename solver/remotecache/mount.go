package remotecache

import (
	"slices"
	"strings"
	"time"

	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// ChunkMediaType is that of the blobs that contents of cache mounts consist of: pieces of a tar, cut where its content says so and each
// compressed by itself.
const ChunkMediaType = "application/vnd.slipway.cachemount.chunk.v1.tar+zstd"

// Limits of cache mounts. A manifest that names the chunks stays below what registries take.
const (
	maxMounts  = 256
	maxMountID = 1 << 10 // bytes
	maxChunks  = 8000    // of all mounts
	// maxChunk is the most a chunk has, plain or compressed, in bytes.
	maxChunk = 64 << 20
)

// Mount is the content of a cache mount.
type Mount struct {
	ID string
	// DiffID is the digest of its tar.
	DiffID  digest.Digest
	Written time.Time // to the second
	// Chunks make up the tar, in order.
	Chunks []Chunk
}

// Chunk is a piece of a tar.
type Chunk struct {
	// Descriptor is of the blob, which is compressed; Plain is the digest of what it unpacks to.
	Descriptor ocispecs.Descriptor
	Plain      digest.Digest
}

// title is what people know a mount by: the Dockerfile frontend puts a namespace before an id, which is mostly empty.
func title(id string) string { return strings.TrimPrefix(id, "/") }

func (c Chunk) valid() bool {
	return c.Descriptor.Digest.Validate() == nil && c.Plain.Validate() == nil && c.Descriptor.Size > 0 && c.Descriptor.Size <= maxChunk
}

// Chunks are the blobs of all mounts, each once.
func (c *Cache) Chunks() []ocispecs.Descriptor {
	var list []ocispecs.Descriptor
	seen := map[digest.Digest]bool{}
	for _, m := range c.Mounts {
		for _, chunk := range m.Chunks {
			if !seen[chunk.Descriptor.Digest] {
				seen[chunk.Descriptor.Digest] = true
				list = append(list, chunk.Descriptor)
			}
		}
	}
	return list
}

func (c *Cache) wireMounts() []wireMount {
	var list []wireMount
	for _, m := range c.Mounts {
		w := wireMount{ID: m.ID, DiffID: m.DiffID, Written: m.Written.Unix()}
		for _, chunk := range m.Chunks {
			w.Chunks = append(w.Chunks, wireChunk{Blob: chunk.Descriptor.Digest, Size: chunk.Descriptor.Size, Plain: chunk.Plain})
		}
		list = append(list, w)
	}
	return list
}

// addMounts reads mounts. Those that make no sense are left out, and so are those beyond the limits.
func (c *Cache) addMounts(list []wireMount) {
	chunks := 0
	for _, w := range list[:min(len(list), maxMounts)] {
		m := Mount{ID: w.ID, DiffID: w.DiffID, Written: time.Unix(w.Written, 0)}
		chunks += len(w.Chunks)
		good := w.ID != "" && len(w.ID) <= maxMountID && w.DiffID.Validate() == nil && len(w.Chunks) > 0 && chunks <= maxChunks &&
			c.mount(w.ID) == nil
		for _, wc := range w.Chunks {
			one := Chunk{Descriptor: ocispecs.Descriptor{MediaType: ChunkMediaType, Digest: wc.Blob, Size: wc.Size}, Plain: wc.Plain}
			if good = good && one.valid(); !good {
				break
			}
			m.Chunks = append(m.Chunks, one)
		}
		if good {
			c.Mounts = append(c.Mounts, m)
		}
	}
}

// mount finds a mount; nil if there is none with the id.
func (c *Cache) mount(id string) *Mount {
	if i := slices.IndexFunc(c.Mounts, func(m Mount) bool { return m.ID == id }); i >= 0 {
		return &c.Mounts[i]
	}
	return nil
}

// mergeMounts adds the mounts of another cache that c has not, as far as there is room. Those of old that were written last go first.
func (c *Cache) mergeMounts(old *Cache) {
	c.Mounts = slices.Clone(c.Mounts)
	total := 0
	for _, m := range c.Mounts {
		total += len(m.Chunks)
	}
	latest := slices.SortedStableFunc(slices.Values(old.Mounts), func(a, b Mount) int { return b.Written.Compare(a.Written) })
	for _, m := range latest {
		if c.mount(m.ID) != nil || len(c.Mounts) >= maxMounts || total+len(m.Chunks) > maxChunks {
			continue
		}
		total += len(m.Chunks)
		c.Mounts = append(c.Mounts, m)
	}
	slices.SortFunc(c.Mounts, func(a, b Mount) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
}

// hasMounts tells whether c has all mounts that want has, with whatever content: of two that write one mount at a time either may win.
func (c *Cache) hasMounts(want *Cache) bool {
	return !slices.ContainsFunc(want.Mounts, func(m Mount) bool { return c.mount(m.ID) == nil })
}
