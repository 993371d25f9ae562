package manifest

import (
	"slices"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// madeHistory is the comment of entries that no frontend wrote.
const madeHistory = "slipway.exporter.image.v0"

// normalise makes history and layers agree: every layer that is kept has one entry that is not empty, in order. Entries beyond
// the layers become empty ones, layers beyond the entries get new ones. A layer without content is not kept, and its entry
// says so. Entries without a time get one: their layer's, or that of the step they belong to.
func normalise(history []ocispecs.History, stack []layer) ([]ocispecs.History, []bool) {
	history = slices.Clone(history)
	if history == nil {
		history = []ocispecs.History{}
	}
	kept := make([]bool, len(stack))
	l := 0
	for i := range history {
		h := &history[i]
		if h.EmptyLayer {
			continue
		}
		if l >= len(stack) {
			h.EmptyLayer = true // a step that left no layer
			continue
		}
		kept[l] = !stack[l].empty
		h.EmptyLayer = stack[l].empty
		if h.Created == nil {
			h.Created = stack[l].time()
		}
		l++
	}
	for ; l < len(stack); l++ {
		if stack[l].empty {
			continue
		}
		kept[l] = true
		history = append(history, ocispecs.History{Created: stack[l].time(), CreatedBy: stack[l].description, Comment: madeHistory})
	}
	fillTimes(history)
	return history, kept
}

// fillTimes gives times to entries without layers. The first of them is where this build begins: it gets the time of the next
// layer, not that of the base image it stands behind. Further ones get the time of the layer before. BuildKit does the same.
func fillTimes(history []ocispecs.History) {
	var created *time.Time
	missing := false
	for _, h := range history {
		if h.Created == nil {
			missing = true
			continue
		}
		created = h.Created
		if missing {
			break
		}
	}
	missing = false
	for i := range history {
		switch h := &history[i]; {
		case h.Created == nil:
			missing = true
			h.Created = created
		case missing:
			created = h.Created
		}
	}
}

// inherited counts the entries that history begins with and that are the base image's.
func inherited(history, base []ocispecs.History) int {
	for i := range history {
		if i >= len(base) || !sameStep(history[i], base[i]) {
			return i
		}
	}
	return len(history)
}

func sameStep(a, b ocispecs.History) bool {
	if (a.Created == nil) != (b.Created == nil) || a.Created != nil && !a.Created.Equal(*b.Created) {
		return false
	}
	return a.CreatedBy == b.CreatedBy && a.Author == b.Author && a.Comment == b.Comment && a.EmptyLayer == b.EmptyLayer
}

// clampTimes lets no entry be later than epoch. What the base image brought keeps its times: they are the same in every build.
func clampTimes(history []ocispecs.History, epoch time.Time) {
	for i, h := range history {
		if h.Created == nil || h.Created.After(epoch) {
			history[i].Created = &epoch
		}
	}
}
