package session

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestHandshakeRoundTrip(t *testing.T) {
	t.Parallel()
	for _, want := range []handshake{
		{id: "a"},
		{id: "a", name: "ctx", sharedKey: "k", methods: []string{"/a.B/C", "/a.B/D"}},
		{id: "a", name: "naïve dir\n", sharedKey: "100% ü+&="},
	} {
		meta := want.meta()
		got, err := parseHandshake(meta)
		if err != nil || got.id != want.id || got.name != want.name || got.sharedKey != want.sharedKey || len(got.methods) != len(want.methods) {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
		lower := map[string][]string{}
		for k, v := range meta {
			lower[strings.ToLower(k)] = v
		}
		if again, err := parseHandshake(lower); err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("as gRPC metadata: %+v, %v", again, err)
		}
	}
	many := handshake{id: "a", methods: make([]string, maxMethods+1)}
	if _, err := parseHandshake(many.meta()); !errors.Is(err, ErrBadHeader) {
		t.Errorf("too many methods: %v", err)
	}
}

func TestNewID(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 1000 {
		id := NewID()
		if len(id) != 25 || strings.Trim(id, "0123456789abcdefghijklmnopqrstuvwxyz") != "" || seen[id] {
			t.Fatalf("id %q, or twice the same", id)
		}
		seen[id] = true
	}
}

func FuzzParseHandshake(f *testing.F) {
	f.Add("id", "name", "key", "1", "/a.B/C")
	f.Add("", "", "%zz", "true", "")
	f.Add("a:b", "\x00", "ü", "x", strings.Repeat("x", 5000))
	f.Fuzz(func(t *testing.T, id, name, key, encoded, method string) {
		h, err := parseHandshake(map[string][]string{
			"x-docker-expose-session-uuid": {id}, headerName: {name}, headerSharedKey: {key}, headerSharedKey + encodedSuffix: {encoded}, headerMethod: {method, method},
		})
		if err != nil {
			if bad := (*RequestError)(nil); !errors.As(err, &bad) {
				t.Errorf("%v is no RequestError", err)
			}
			return
		}
		if h.id == "" || bareID("prefix:"+h.id) != h.id || bareID(h.id) != h.id {
			t.Errorf("id %q cannot be looked up", h.id)
		}
		if len(h.name)+len(h.sharedKey) > maxValueLength/3 {
			return // may be too long once it is escaped
		}
		if len(h.name)+len(h.sharedKey) > maxValueLength/3 {
			return // may be too long once it is escaped
		}
		if again, err := parseHandshake(h.meta()); err != nil || !reflect.DeepEqual(again, h) {
			t.Errorf("%+v sent on becomes %+v, %v", h, again, err)
		}
	})
}
