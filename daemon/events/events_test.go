package events

import (
	"strconv"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"
)

func TestListenersHearWhatFollows(t *testing.T) {
	t.Parallel()
	var h Hub
	h.Publish(events.BuilderEventType, events.ActionPrune, "", map[string]string{"reclaimed": "1"})
	past, l := h.Listen(time.Time{})
	defer l.Close()
	if len(past) != 0 {
		t.Errorf("heard of the past without asking: %v", past)
	}
	h.Publish(events.ImageEventType, events.ActionTag, "sha256:x", nil)
	if m := <-l.Next(); m.Type != "image" || m.Action != "tag" || m.Actor.ID != "sha256:x" || m.Scope != "local" || m.TimeNano == 0 {
		t.Errorf("heard %+v", m)
	}
	l.Close()
	if _, open := <-l.Next(); open || h.Listeners() != 0 {
		t.Error("a closed listener is still there")
	}
}

func TestThePastIsKeptForAWhile(t *testing.T) {
	t.Parallel()
	var h Hub
	for i := range kept + 10 {
		h.Publish(events.ImageEventType, events.ActionTag, strconv.Itoa(i), nil)
	}
	past, l := h.Listen(time.Unix(1, 0))
	defer l.Close()
	if len(past) != kept || past[0].Actor.ID != "10" || past[kept-1].Actor.ID != strconv.Itoa(kept+9) {
		t.Errorf("%d events, from %v", len(past), past[0])
	}
	if late, l := h.Listen(time.Now().Add(time.Hour)); len(late) != 0 {
		t.Errorf("%d events of the future", len(late))
	} else {
		l.Close()
	}
}

// One that does not read is let go, and neither holds the others up nor believes that it heard everything.
func TestSlowListenerIsLetGo(t *testing.T) {
	t.Parallel()
	var h Hub
	_, slow := h.Listen(time.Time{})
	defer slow.Close()
	for i := range backlog + 1 {
		h.Publish(events.ImageEventType, events.ActionTag, strconv.Itoa(i), nil)
	}
	n := 0
	for range slow.Next() {
		n++
	}
	if n != backlog || h.Listeners() != 0 {
		t.Errorf("%d events, %d listeners", n, h.Listeners())
	}
}
