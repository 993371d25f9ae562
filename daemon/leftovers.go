package daemon

import (
	"crypto/rand"
	"errors"
	"strings"
	"sync"

	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/ops"
)

// leftovers are what the failed steps of a build saw and left, named by ids for those who want to look into it. They are kept
// until the build ends. The zero value is ready.
type leftovers struct {
	mu      sync.Mutex
	closed  bool
	byID    map[string]*layers.Ref
	byError map[*ops.StepError]left
}

// left names what one failed step saw and left; the empty id is nothing.
type left struct{ inputs, results []string }

// keep names what is behind an error. The same error gets the same ids.
func (l *leftovers) keep(err *ops.StepError) left {
	l.mu.Lock()
	defer l.mu.Unlock()
	if known, ok := l.byError[err]; ok || l.closed {
		return known
	}
	if l.byID == nil {
		l.byID, l.byError = map[string]*layers.Ref{}, map[*ops.StepError]left{}
	}
	inputs, results := err.Left()
	names := left{inputs: l.name(inputs), results: l.name(results)}
	l.byError[err] = names
	return names
}

func (l *leftovers) name(refs []*layers.Ref) []string {
	ids := make([]string, len(refs))
	for i, ref := range refs {
		if ref == nil {
			continue
		}
		ids[i] = strings.ToLower(rand.Text())
		l.byID[ids[i]] = ref
	}
	return ids
}

// find returns what has an id, nil if nothing does. It stays the leftovers'.
func (l *leftovers) find(id string) *layers.Ref {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.byID[id]
}

func (l *leftovers) release() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	var errs []error
	for _, ref := range l.byID {
		errs = append(errs, ref.Release())
	}
	l.byID, l.byError = nil, nil
	return errors.Join(errs...)
}
