// Package progress is what a build tells the people who watch it: vertices that start and end, statuses that move, log
// bytes, warnings, and a trace of every key that was looked up.
//
// The engine never waits for a viewer. Whoever works writes events to a [Sink]; the sink of a build is a [Journal], an
// append-only file that any number of readers follow at their own pace. Nothing is clipped and nothing blocks.
//
// A step is named by its stable id, the digest of its definition, not by a cache key; see package solver.
package progress

import (
	"time"

	digest "github.com/opencontainers/go-digest"
)

// Event is one entry of a build's story. Exactly one field is set.
type Event struct {
	Vertex  *Vertex  `json:"vertex,omitempty"`
	Status  *Status  `json:"status,omitempty"`
	Log     *Log     `json:"log,omitempty"`
	Warning *Warning `json:"warning,omitempty"`
	Trace   *Trace   `json:"trace,omitempty"`
}

// Vertex is the state of a step. It is written again, whole, whenever it changes; the last one written counts.
type Vertex struct {
	ID        digest.Digest   `json:"id"`
	Inputs    []digest.Digest `json:"inputs,omitempty"`
	Name      string          `json:"name"`
	Started   *time.Time      `json:"started,omitempty"`
	Completed *time.Time      `json:"completed,omitempty"`
	Cached    bool            `json:"cached,omitempty"`
	Error     string          `json:"error,omitempty"`
	Group     *Group          `json:"group,omitempty"`
}

// Group joins vertices that a viewer should show as one.
type Group struct {
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
	Weak bool   `json:"weak,omitempty"`
}

// Status is one line of progress inside a step: a transfer, an unpacking. ID is unique within the vertex. Current and Total
// are bytes unless Name says otherwise; Total is 0 when unknown. Completed must be set in the end, or viewers hang.
type Status struct {
	Vertex    digest.Digest `json:"vertex"`
	ID        string        `json:"id"`
	Name      string        `json:"name,omitempty"`
	Current   int64         `json:"current,omitempty"`
	Total     int64         `json:"total,omitempty"`
	Timestamp time.Time     `json:"timestamp"`
	Started   *time.Time    `json:"started,omitempty"`
	Completed *time.Time    `json:"completed,omitempty"`
}

// Streams of a [Log].
const (
	Stdout = 1
	Stderr = 2
)

// Log is output of a step, as bytes: neither whole lines nor valid UTF-8.
type Log struct {
	Vertex    digest.Digest `json:"vertex"`
	Stream    int           `json:"stream"`
	Data      []byte        `json:"data"`
	Timestamp time.Time     `json:"timestamp"`
}

// Warning is something the author of the Dockerfile should know. Fields follow BuildKit's VertexWarning.
type Warning struct {
	Vertex     digest.Digest `json:"vertex"`
	Level      int           `json:"level,omitempty"`
	Short      []byte        `json:"short"`
	Detail     [][]byte      `json:"detail,omitempty"`
	URL        string        `json:"url,omitempty"`
	SourceInfo *SourceInfo   `json:"sourceInfo,omitempty"`
	Ranges     []Range       `json:"ranges,omitempty"`
}

// SourceInfo is the file a warning speaks of.
type SourceInfo struct {
	Filename   string `json:"filename"`
	Language   string `json:"language,omitempty"`
	Data       []byte `json:"data,omitempty"`
	Definition []byte `json:"definition,omitempty"`
}

// Range is a part of a file; lines count from 1, characters from 0.
type Range struct {
	StartLine int32 `json:"startLine"`
	StartChar int32 `json:"startChar"`
	EndLine   int32 `json:"endLine"`
	EndChar   int32 `json:"endChar"`
}

// Trace records one look-up of one key of a step: the parts the key was made of, and whether something was found under it.
// Explaining a miss is comparing the parts with those of an earlier record of the same step.
type Trace struct {
	Vertex digest.Digest `json:"vertex"`
	Kind   string        `json:"kind"` // "promise", "identity" or "content"
	Key    string        `json:"key"`
	Hit    bool          `json:"hit"`
	Reason string        `json:"reason,omitempty"` // of a miss
	Parts  []Part        `json:"parts,omitempty"`
	Time   time.Time     `json:"time"`
}

// Part is one named part of a key, in the order it was hashed.
type Part struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Sink takes the events of one build. Append must not block on a reader and must be safe for concurrent use. The event and
// what it points to must not be changed after the call.
type Sink interface {
	Append(Event)
}

// Discard is a Sink that forgets.
var Discard Sink = discard{}

type discard struct{}

func (discard) Append(Event) {}

// Writer is a Sink seen by the work of one vertex: it fills in the vertex id and the time. Safe for concurrent use.
type Writer interface {
	// Status writes a line of progress.
	Status(Status)
	// Log writes output bytes to stream [Stdout] or [Stderr]. It keeps no reference to data.
	Log(stream int, data []byte)
	// Warn writes a warning.
	Warn(Warning)
}
