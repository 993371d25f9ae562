package daemon

import (
	"sync"

	"github.com/slipwaybuild/slipway/exporter"
)

// delivered remembers, over the attempts to write the outputs of a build, those that went to a client in one stream: they are sent once. If
// layers were lost after that and made again, what others get may differ from it where a step does not make the same twice; a
// second stream would be worth less. The zero value is ready.
type delivered struct {
	streams exporter.Streams

	mu      sync.Mutex
	answers map[int]map[string]string
}

// done notes the answer of an output that was written.
func (d *delivered) done(i int, answer map[string]string) {
	if !d.streams.Begun(i) {
		return // it can be written again
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.answers == nil {
		d.answers = map[int]map[string]string{}
	}
	d.answers[i] = answer
}

// answer returns what an output answered that is not to be written again.
func (d *delivered) answer(i int) (map[string]string, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a, ok := d.answers[i]
	return a, ok
}

// broken tells whether a client has a part of a stream and will not have the rest.
func (d *delivered) broken() bool {
	return d.streams.Any(func(id int) bool { _, ok := d.answer(id); return ok })
}
