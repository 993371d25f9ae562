package layers

import (
	"encoding/json"
	"slices"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// record is what the index keeps of a layer.
type record struct {
	ID     ID            `json:"id"`
	Kind   Kind          `json:"kind"`
	DiffID digest.Digest `json:"diffID,omitempty"`
	// Remotes are where the bytes can be had, the latest known first.
	Remotes []RemoteBlob `json:"remotes,omitempty"`
	Labels  Labels       `json:"labels"`
	// Parents are for du.
	Parents  []ID      `json:"parents,omitempty"`
	Created  time.Time `json:"created"`
	LastUsed time.Time `json:"lastUsed"`
	Uses     int       `json:"uses,omitempty"`

	// What is on disk, and what each part takes there.
	HasBlob      bool  `json:"blob,omitempty"`
	HasDir       bool  `json:"dir,omitempty"`
	HasUnpacked  bool  `json:"unpacked,omitempty"`
	BlobSize     int64 `json:"blobSize,omitempty"`
	DirSize      int64 `json:"dirSize,omitempty"`
	UnpackedSize int64 `json:"unpackedSize,omitempty"`

	// Empty layers hold no entry and need not be mounted.
	Empty bool `json:"empty,omitempty"`
	// Odd says that the layer has implied directories or whiteouts, so that a stack with it may need mending.
	Odd bool `json:"odd,omitempty"`
	// Root holds the attributes that the root directory of a step had when it began; a sealed upper that still has them
	// does not change them.
	Root *rootAttrs `json:"root,omitempty"`
	// Retired says that the cache was told to forget the layer and only an image keeps it, until it is asked for again.
	Retired bool `json:"retired,omitempty"`
	// Derived says of a blob that it is here only because a directory layer was packed into it.
	Derived bool `json:"derived,omitempty"`
	// Boot names the boot in which the bytes were written, until they are known to be on stable storage. Found in a later
	// boot, it means that power may have failed before they were.
	Boot string `json:"boot,omitempty"`
}

// layer is the in-memory index entry. Everything in it is guarded by Store.mu.
type layer struct {
	record
	pins    int      // refs
	holds   int      // owners
	aliases []*layer // directory layers that were packed into this one
	packed  *layer   // the blob this directory was packed into
	gone    bool     // no longer in the index
	// odd are the directories that may need mending, once they are known.
	odd    *oddities
	lent   fstree.Tree       // of a Lent layer
	end    func() error      // of a Lent layer, until it was called
	chains map[string]*chain // mended stacks that this layer is part of, by their keys
}

// source is the layer whose blob holds the bytes: itself, or what it was packed into; nil if there is no blob.
func (l *layer) source() *layer {
	if l.HasBlob {
		return l
	}
	if l.packed != nil && l.packed.HasBlob {
		return l.packed
	}
	return nil
}

// local says whether the bytes are here.
func (l *layer) local() bool { return l.Kind != Remote }

// free says whether nobody holds the layer.
func (l *layer) free() bool { return l.pins == 0 && l.holds == 0 && len(l.aliases) == 0 }

func (l *layer) size() int64 { return l.BlobSize + l.DirSize + l.UnpackedSize }

func (l *layer) info() Info {
	i := Info{ID: l.ID, Kind: l.Kind, DiffID: l.DiffID, Size: l.BlobSize + l.DirSize, Labels: l.Labels, CreatedAt: l.Created}
	if l.packed != nil {
		i.Size += l.packed.BlobSize
	}
	if len(l.Remotes) > 0 {
		r := l.Remotes[0]
		i.Remote = &r
	}
	return i
}

func (l *layer) setPacked(blob *layer) {
	l.packed, l.DiffID = blob, blob.DiffID
	blob.aliases = append(blob.aliases, l)
}

func (l *layer) dropAlias(dir *layer) {
	l.aliases = slices.DeleteFunc(l.aliases, func(a *layer) bool { return a == dir })
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only our own plain structs are given
	}
	return b
}
