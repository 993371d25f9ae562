package remotecache

import (
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver"
)

// ConfigMediaType is that of a cache's config: BuildKit's.
const ConfigMediaType = "application/vnd.buildkit.cacheconfig.v0"

// wireConfig is a config as it is written. The names are those of BuildKit's cache config, version 0.
type wireConfig struct {
	Layers  []wireLayer  `json:"layers,omitempty"`
	Records []wireRecord `json:"records,omitempty"`
	// Mounts are ours.
	Mounts []wireMount `json:"slipway.mounts,omitempty"`
}

type wireMount struct {
	ID      string        `json:"id"`
	DiffID  digest.Digest `json:"diffID"`
	Written int64         `json:"written"` // seconds since 1970
	Chunks  []wireChunk   `json:"chunks"`
}

type wireChunk struct {
	Blob  digest.Digest `json:"blob"`
	Size  int64         `json:"size"` // of the blob
	Plain digest.Digest `json:"plain"`
}

type wireLayer struct {
	Blob digest.Digest `json:"blob,omitempty"`
	// Parent is the index of the layer below, -1 if there is none.
	Parent int `json:"parent,omitempty"`
	// Annotations are needed where no manifest says the same.
	Annotations *wireAnnotations `json:"annotations,omitempty"`
}

type wireAnnotations struct {
	MediaType string        `json:"mediaType,omitempty"`
	DiffID    digest.Digest `json:"diffID,omitempty"`
	Size      int64         `json:"size,omitempty"`
	CreatedAt time.Time     `json:"createdAt"`
	// Description is ours.
	Description string `json:"description,omitempty"`
}

type wireRecord struct {
	Results []wireResult  `json:"layers,omitempty"`
	Chains  []wireChain   `json:"chains,omitempty"`
	Digest  digest.Digest `json:"digest,omitempty"`
	Inputs  [][]wireInput `json:"inputs,omitempty"`
	// Step is ours. Records without one are BuildKit's.
	Step *wireStep `json:"slipway,omitempty"`
}

type wireResult struct {
	Layer     int       `json:"layer"`
	CreatedAt time.Time `json:"createdAt"`
}

type wireChain struct {
	Layers    []int     `json:"layers"`
	CreatedAt time.Time `json:"createdAt"`
}

type wireInput struct {
	Selector string `json:"selector,omitempty"`
	Link     int    `json:"link"`
}

// wireStep is one output of one step. The other fields are those of the first output alone.
type wireStep struct {
	// Keys is the format of our keys: those of another one mean nothing here.
	Keys     string `json:"keys"`
	Identity string `json:"identity"`
	Output   int    `json:"output,omitempty"`
	Nil      bool   `json:"nil,omitempty"` // there is no result
	// Stack are indexes of layers, bottom first; -1 is a layer without content, which has no blob.
	Stack []int `json:"stack,omitempty"`

	Outputs  int           `json:"outputs,omitempty"`
	Promises []string      `json:"promises,omitempty"`
	Contents []wireContent `json:"contents,omitempty"`
	ID       digest.Digest `json:"step,omitempty"`
	Name     string        `json:"name,omitempty"`
	Used     int64         `json:"used,omitempty"` // seconds since 1970
}

type wireContent struct {
	Output   int           `json:"output,omitempty"`
	Selector string        `json:"selector"`
	Digest   digest.Digest `json:"digest"`
}

func (s wireStep) ours() bool { return s.Keys == solver.KeyFormat }
