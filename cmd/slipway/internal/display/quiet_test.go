package display

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
)

func TestQuietShowsTheFailedStepOnly(t *testing.T) {
	t.Parallel()
	now := time.Now()
	statuses := make(chan *client.SolveStatus, 3)
	statuses <- &client.SolveStatus{
		Vertexes: []*client.Vertex{{Digest: "a", Name: "good"}, {Digest: "b", Name: "bad"}},
		Logs: []*client.VertexLog{
			{Vertex: "a", Data: []byte("fine\n")},
			{Vertex: "b", Data: []byte(strings.Repeat("x", 2*lastWords) + "\nlast words\n")},
		},
	}
	statuses <- &client.SolveStatus{Vertexes: []*client.Vertex{{Digest: "a", Name: "good", Completed: &now}}}
	statuses <- &client.SolveStatus{Vertexes: []*client.Vertex{{Digest: "b", Name: "bad", Completed: &now, Error: "exit code: 1"}}}
	close(statuses)
	var out bytes.Buffer
	if err := quiet(statuses, &out); err != nil {
		t.Fatal(err)
	}
	got := out.String()
	if strings.Contains(got, "fine") || !strings.Contains(got, "> bad:") || !strings.Contains(got, "last words\n") {
		t.Errorf("got %q", got)
	}
	if len(got) > lastWords+100 {
		t.Errorf("%d bytes were shown, want the last %d", len(got), lastWords)
	}
}
