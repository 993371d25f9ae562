package daemon

import (
	"context"
	"crypto/rand"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// step shows work that is no vertex of a graph, resolving a reference or exporting, as one in the build's progress.
func (b *build) step(ctx context.Context, name string, work func(context.Context, progress.Writer) error) error {
	// The same work may be done twice in a build, each time a line of its own.
	id := digest.FromString(name + "\x00" + rand.Text())
	started := time.Now()
	v := progress.Vertex{ID: id, Name: name, Started: &started}
	b.sink.Append(progress.Event{Vertex: &v})
	err := work(ctx, progress.NewWriter(b.sink, id))
	ended := v
	completed := time.Now()
	ended.Completed = &completed
	if err != nil {
		ended.Error = err.Error()
	}
	b.sink.Append(progress.Event{Vertex: &ended})
	return err
}

// groupNow is the build's sessions, as those who borrow ask for them.
func (b *build) groupNow() *session.Group { return b.sessions }
