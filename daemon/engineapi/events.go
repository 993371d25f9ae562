package engineapi

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slipwaybuild/slipway/daemon/events"
)

// event is how an event is sent. Fields above the message are those of old clients, for images only.
type event struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	events.Message
}

func newEvent(m events.Message) event {
	e := event{Message: m}
	if m.Type == "image" {
		e.Status, e.ID = string(m.Action), m.Actor.ID
	}
	return e
}

// events streams what happens, from "since" until "until" or until the client leaves.
func (a *api) events(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	since, err := timeParam(q, "since")
	if err != nil {
		return err
	}
	until, err := timeParam(q, "until")
	if err != nil {
		return err
	}
	if !until.IsZero() && until.Before(since) {
		return invalid("`since` time (%s) cannot be after `until` time (%s)", q.Get("since"), q.Get("until"))
	}
	match, err := eventFilter(q)
	if err != nil {
		return err
	}
	past, listener := a.Engine.Events().Listen(since)
	defer listener.Close()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	ctrl := http.NewResponseController(w)
	out := json.NewEncoder(w)
	send := func(m events.Message) error {
		if !match(m) || !until.IsZero() && m.TimeNano > until.UnixNano() {
			return nil
		}
		if err := out.Encode(newEvent(m)); err != nil {
			return err
		}
		return ctrl.Flush()
	}
	for _, m := range past {
		if err := send(m); err != nil {
			return err
		}
	}
	// A client learns that it is listening even while nothing happens.
	if err := ctrl.Flush(); err != nil {
		return err
	}
	return follow(r, listener, until, send)
}

// follow sends what is heard until it is time, the client leaves, or events are lost.
func follow(r *http.Request, l *events.Listener, until time.Time, send func(events.Message) error) error {
	var end <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		end = t.C
	}
	for {
		select {
		case <-r.Context().Done():
			return nil
		case <-end:
			return nil
		case m, ok := <-l.Next():
			if !ok {
				return nil
			}
			if err := send(m); err != nil {
				return err
			}
		}
	}
}

// timeParam reads seconds since 1970 with an optional fraction, as clients send times of any form.
func timeParam(q url.Values, key string) (time.Time, error) {
	text := q.Get(key)
	if text == "" || text == "0" {
		return time.Time{}, nil
	}
	whole, fraction, _ := strings.Cut(text, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, invalid("parameter %s: %q is no time in seconds", key, text)
	}
	var nano int64
	if fraction != "" {
		if len(fraction) > 9 {
			fraction = fraction[:9]
		}
		if nano, err = strconv.ParseInt(fraction+strings.Repeat("0", 9-len(fraction)), 10, 64); err != nil || nano < 0 {
			return time.Time{}, invalid("parameter %s: %q is no time in seconds", key, text)
		}
	}
	return time.Unix(sec, nano), nil
}

// eventFilter tells which events a client wants: all that match one value of every key.
func eventFilter(q url.Values) (func(events.Message) bool, error) {
	f, err := parseFilters(q, "type", "event", "image", "label", "scope", "daemon",
		"container", "volume", "network", "plugin", "service", "node", "secret", "config")
	if err != nil {
		return nil, err
	}
	return func(m events.Message) bool {
		for key, values := range f {
			if !slices.ContainsFunc(values, func(v string) bool { return eventMatches(m, key, v) }) {
				return false
			}
		}
		return true
	}, nil
}

func eventMatches(m events.Message, key, value string) bool {
	switch key {
	case "type":
		return string(m.Type) == value
	case "event":
		return string(m.Action) == value
	case "scope":
		return m.Scope == value
	case "label":
		name, want, valued := strings.Cut(value, "=")
		got, ok := m.Actor.Attributes[name]
		return ok && (!valued || got == want)
	case "image":
		name := m.Actor.Attributes["name"]
		short, _, _ := strings.Cut(name, ":")
		return m.Type == "image" && (m.Actor.ID == value || name == value || short == value)
	case "daemon":
		return m.Type == "daemon"
	}
	// The other keys name things that nothing happens to here.
	return string(m.Type) == key && m.Actor.ID == value
}
