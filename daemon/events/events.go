// Package events tells those who listen what happens to images and to the build cache, as GET /events of Docker's Engine API does.
package events

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
)

// Message is one event. Its types, actions and attributes are Docker's.
type Message = events.Message

// kept is how many past events a listener can still ask for.
const kept = 256

// backlog is how many events a listener may be behind before it loses its place.
const backlog = 1024

// Hub passes events on. All methods are safe for concurrent use; the zero value is ready.
type Hub struct {
	mu        sync.Mutex
	past      []Message // oldest first
	listeners map[*Listener]struct{}
}

// Publish tells everybody of something that happened now to the thing id. It never waits for a listener. The hub keeps a copy of
// attributes.
func (h *Hub) Publish(typ events.Type, action events.Action, id string, attributes map[string]string) {
	attributes = maps.Clone(attributes)
	if attributes == nil {
		attributes = map[string]string{}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	// The time is taken under the lock, so that the order is that of the times.
	now := time.Now()
	m := Message{
		Type: typ, Action: action, Actor: events.Actor{ID: id, Attributes: attributes},
		Scope: "local", Time: now.Unix(), TimeNano: now.UnixNano(),
	}
	if len(h.past) == kept {
		h.past = slices.Delete(h.past, 0, 1)
	}
	h.past = append(h.past, m)
	for l := range h.listeners {
		select {
		case l.next <- m:
		default:
			// One that does not listen must not hold up what it would hear of.
			delete(h.listeners, l)
			close(l.next)
		}
	}
}

// Listeners counts those who listen.
func (h *Hub) Listeners() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.listeners)
}

// Listener hears every event from when it was made.
type Listener struct {
	hub  *Hub
	next chan Message
}

// Listen returns the kept events that are not older than since (none if it is zero), and a listener for all that follow, without
// a gap between them. The caller closes the listener.
func (h *Hub) Listen(since time.Time) ([]Message, *Listener) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var past []Message
	if !since.IsZero() {
		for _, m := range h.past {
			if m.TimeNano >= since.UnixNano() {
				past = append(past, m)
			}
		}
	}
	l := &Listener{hub: h, next: make(chan Message, backlog)}
	if h.listeners == nil {
		h.listeners = map[*Listener]struct{}{}
	}
	h.listeners[l] = struct{}{}
	return past, l
}

// Next is closed when the listener is closed, or was so slow that events are lost.
func (l *Listener) Next() <-chan Message { return l.next }

// Close ends listening. It may be called more than once.
func (l *Listener) Close() {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	if _, ok := l.hub.listeners[l]; ok {
		delete(l.hub.listeners, l)
		close(l.next)
	}
}
