package layers

import (
	"context"
	"errors"
	"io"
	"time"

	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// ID names a layer: the diffID of a blob or remote layer, "dir:<random>" of a sealed directory, "lent:<random>" of a tree of somebody else's. It is host-independent only in
// the first case.
type ID string

// ErrNotFound is returned when a layer that was asked for by ID is not in the store: to a cache, a miss.
var ErrNotFound = errors.New("layer not found")

// ErrNotLocal is returned when the bytes of a remote layer are wanted that were not fetched yet.
var ErrNotLocal = errors.New("layer is not fetched")

// Kind tells what a layer is made of.
type Kind string

// The kinds of layer.
const (
	Blob      Kind = "blob"      // one file: EROFS metadata around the exact tar
	Directory Kind = "directory" // the sealed upper directory of a step
	Remote    Kind = "remote"    // known by diffID and descriptor, bytes still at a registry
	Lent      Kind = "lent"      // a tree of somebody else's, for as long as it is held
)

// Use tells what a layer or volume is for; values are BuildKit's usage record types.
type Use string

// The uses.
const (
	UseRegular    Use = "regular"
	UseLocal      Use = "source.local"
	UseGit        Use = "source.git.checkout"
	UseCacheMount Use = "exec.cachemount"
	UseFrontend   Use = "frontend"
	UseInternal   Use = "internal"
)

// Info describes a layer.
type Info struct {
	ID   ID
	Kind Kind
	// DiffID is the digest of the uncompressed tar; empty for a directory or a lent tree that was not packed.
	DiffID digest.Digest
	// Size is what it takes on disk in bytes; 0 for a remote layer.
	Size int64
	// Remote is where the compressed bytes can be fetched again; nil if nowhere.
	Remote *RemoteBlob
	Labels Labels
	// CreatedAt is when the layer came into the store.
	CreatedAt time.Time
}

// Labels is what people read about a layer in du.
type Labels struct {
	Description string
	Use         Use
}

// RemoteBlob names compressed layer bytes at a registry, or in the content of a client's session. It holds no credentials and
// no session id.
type RemoteBlob struct {
	// Ref is the image reference it was found through, with registry host and repository.
	Ref string
	// Descriptor is of the compressed blob.
	Descriptor ocispecs.Descriptor
	DiffID     digest.Digest
	// Size of what the layer unpacks to is not known before.
	CreatedBy string
	// Description is what a layer that is new here is called; empty for where it is.
	Description string `json:",omitempty"`
	// CreatedAt is when the layer was made, where that is known: then one that is new here is as old as that.
	CreatedAt time.Time `json:",omitzero"`
	// Cached says that it is another machine's cache that has the bytes. What is wrong with a cache, or with how it is reached, fails no
	// build: the layer is gone then, and made again.
	Cached bool `json:",omitempty"`
}

// Fetcher brings remote blobs. It is passed in by whoever has the credentials to do so, and kept by no one.
type Fetcher interface {
	// Fetch opens the compressed blob; the store verifies digest and size. A body that breaks off is opened again, unless its error
	// wraps [ErrGivenUp].
	Fetch(ctx context.Context, blob RemoteBlob) (io.ReadCloser, error)
}

// Usage is one line of du.
type Usage struct {
	ID          string
	Parents     []string
	Kind        Kind
	Use         Use
	Description string
	Size        int64
	InUse       bool
	Mutable     bool
	Shared      bool // also held by an image
	// Own says that it is what the store needs for itself, which nothing can remove; Retired that it was pruned, and is here for
	// an image only. Neither is cache.
	Own, Retired bool
	CreatedAt    time.Time
	LastUsedAt   time.Time
	UsageCount   int
}

// PruneOptions limits what [Store.Prune] removes. The zero value removes everything that nobody holds except what images
// hold.
type PruneOptions struct {
	// Filter keeps a usage from being pruned when it returns false. nil takes all.
	Filter func(Usage) bool
	// KeepDuration spares what was used within it.
	KeepDuration time.Duration
	// MaxUsed is a size to come down to, in bytes, without what images hold; 0 removes all that may be removed.
	MaxUsed int64
	// Reserved is a size below which nothing is removed, counted as MaxUsed is.
	Reserved int64
	// MinFree is free space on the file system to reach.
	MinFree int64
	// All also removes internal and frontend layers.
	All bool
}

// ImportOptions goes with [Store.Import], [Store.Pack] and [Store.Seal].
type ImportOptions struct {
	// Want is the diffID the tar must have; empty takes any. Not used by Pack and Seal.
	Want   digest.Digest
	Labels Labels
	// Parents are ids of the layers it was made on, for du only.
	Parents []ID
}
