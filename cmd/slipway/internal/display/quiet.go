package display

import (
	"fmt"
	"io"

	"github.com/moby/buildkit/client"
	digest "github.com/opencontainers/go-digest"
)

// lastWords is how much of a step's output is kept in case the step fails, in bytes.
const lastWords = 8 << 10

// quiet shows nothing, but for a step that fails: then its last output, without which the error would explain nothing.
func quiet(statuses <-chan *client.SolveStatus, out io.Writer) error {
	tails := map[digest.Digest][]byte{}
	for s := range statuses {
		for _, l := range s.Logs {
			tail := append(tails[l.Vertex], l.Data...)
			tails[l.Vertex] = tail[max(0, len(tail)-lastWords):]
		}
		for _, v := range s.Vertexes {
			if v.Completed == nil {
				continue
			}
			if v.Error != "" && len(tails[v.Digest]) > 0 {
				if _, err := fmt.Fprintf(out, "------\n > %s:\n%s------\n", v.Name, tails[v.Digest]); err != nil {
					return fmt.Errorf("write progress: %w", err)
				}
			}
			delete(tails, v.Digest)
		}
	}
	return nil
}
