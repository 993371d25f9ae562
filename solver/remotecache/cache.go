package remotecache

import (
	"time"

	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver"
)

// Layer is a blob and what it unpacks to.
type Layer struct {
	// Descriptor is of the blob as it is in the cache, compressed or not.
	Descriptor ocispecs.Descriptor
	DiffID     digest.Digest
	CreatedAt  time.Time
	// Description is what made the layer, for people; may be empty.
	Description string
}

// NoLayer stands in an [Output] for a layer without content.
const NoLayer = -1

// absentLayer is the whole stack of an absent output as it is written: those who know nothing of them leave the step out.
const absentLayer = -2

// Output is one result of a step.
type Output struct {
	// Nil says that there is none.
	Nil bool
	// Absent says that there is one, which the cache has not: whoever needs it makes the step again. At least one output of a step is
	// not absent.
	Absent bool
	// Stack are indexes into the layers of the [Cache], bottom first, or [NoLayer].
	Stack []int
}

// Entry is what a cache has of one step.
type Entry struct {
	Identity solver.Identity
	Promises []solver.Promise
	Outputs  []Output
	Contents []solver.Content
	Step     digest.Digest
	Name     string
	// Used is when it was last written, by whomever had it, to the second.
	Used time.Time
}

// Cache is the content of a cache's config.
type Cache struct {
	Layers  []Layer
	Entries []Entry
	// Mounts are contents of cache mounts, each id once.
	Mounts []Mount
	// Foreign counts the records that are not ours to understand.
	Foreign int
}

// layerOf finds layers by what they unpack to.
func (c *Cache) layerOf() map[digest.Digest]int {
	at := make(map[digest.Digest]int, len(c.Layers))
	for i, l := range c.Layers {
		at[l.DiffID] = i
	}
	return at
}
