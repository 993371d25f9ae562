package engineapi

import (
	"context"
	"sync"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"
)

// newTextDisplay tells of a build in lines, for clients that cannot draw it themselves. It starts its goroutine with the first
// part of the story and ends it with the last.
func newTextDisplay(out *stream) (display, error) {
	d, err := progressui.NewDisplay(streamText{out}, progressui.PlainMode)
	if err != nil {
		return nil, err
	}
	parts := make(chan *client.SolveStatus)
	var wg sync.WaitGroup
	var once sync.Once
	return func(part *controlapi.StatusResponse) error {
		once.Do(func() {
			wg.Go(func() {
				// Ends when parts is closed; the lines of a client that is gone go nowhere.
				_, _ = d.UpdateFrom(context.Background(), parts)
			})
		})
		if part != nil {
			parts <- client.NewSolveStatus(part)
			return nil
		}
		close(parts)
		wg.Wait()
		return nil
	}, nil
}

// streamText sends what is written as messages.
type streamText struct{ out *stream }

func (s streamText) Write(b []byte) (int, error) {
	// A display stops at an error, and would leave who feeds it waiting.
	_ = s.out.Send(message{Stream: string(b)})
	return len(b), nil
}
