// Package progresspb turns a build's story into BuildKit's status messages: what the Status call streams, and what a build
// record's log blob holds.
package progresspb

import (
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/solver/pb"
	"github.com/slipwaybuild/slipway/solver/progress"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// These bound how much of a story goes into one message: a late viewer of a long build gets many small ones.
const (
	batchEvents = 500
	batchBytes  = 512 << 10
)

// Batch waits for one event of next and takes along those that are there already, which more tells. Together with an error come
// the events before it.
func Batch(next func() (progress.Event, error), more func() bool) ([]progress.Event, error) {
	var batch []progress.Event
	size := 0
	for {
		e, err := next()
		if err != nil {
			return batch, err
		}
		batch = append(batch, e)
		if e.Log != nil {
			size += len(e.Log.Data)
		}
		if len(batch) >= batchEvents || size >= batchBytes || !more() {
			return batch, nil
		}
	}
}

// Response converts events to the wire. Traces of key look-ups are not part of it.
func Response(events []progress.Event) *controlapi.StatusResponse {
	res := &controlapi.StatusResponse{}
	for _, e := range events {
		switch {
		case e.Vertex != nil:
			res.Vertexes = append(res.Vertexes, vertex(e.Vertex))
		case e.Status != nil:
			st := e.Status
			res.Statuses = append(res.Statuses, &controlapi.VertexStatus{
				ID: st.ID, Vertex: string(st.Vertex), Name: st.Name, Current: st.Current, Total: st.Total,
				Timestamp: timestamppb.New(st.Timestamp), Started: stamp(st.Started), Completed: stamp(st.Completed),
			})
		case e.Log != nil:
			res.Logs = append(res.Logs, &controlapi.VertexLog{
				Vertex: string(e.Log.Vertex), Timestamp: timestamppb.New(e.Log.Timestamp), Stream: int64(e.Log.Stream), Msg: e.Log.Data,
			})
		case e.Warning != nil:
			res.Warnings = append(res.Warnings, warning(e.Warning))
		}
	}
	return res
}

func vertex(v *progress.Vertex) *controlapi.Vertex {
	out := &controlapi.Vertex{
		Digest: string(v.ID), Name: v.Name, Cached: v.Cached, Error: v.Error,
		Started: stamp(v.Started), Completed: stamp(v.Completed),
	}
	for _, in := range v.Inputs {
		out.Inputs = append(out.Inputs, string(in))
	}
	if g := v.Group; g != nil {
		out.ProgressGroup = &pb.ProgressGroup{Id: g.ID, Name: g.Name, Weak: g.Weak}
	}
	return out
}

func warning(w *progress.Warning) *controlapi.VertexWarning {
	out := &controlapi.VertexWarning{Vertex: string(w.Vertex), Level: int64(w.Level), Short: w.Short, Detail: w.Detail, Url: w.URL}
	if i := w.SourceInfo; i != nil {
		out.Info = &pb.SourceInfo{Filename: i.Filename, Language: i.Language, Data: i.Data}
	}
	for _, r := range w.Ranges {
		out.Ranges = append(out.Ranges, &pb.Range{
			Start: &pb.Position{Line: r.StartLine, Character: r.StartChar},
			End:   &pb.Position{Line: r.EndLine, Character: r.EndChar},
		})
	}
	return out
}

func stamp(t *time.Time) *timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return timestamppb.New(*t)
}
