package builds

import (
	"errors"
	"testing"

	controlapi "github.com/moby/buildkit/api/services/control"
)

func TestMatch(t *testing.T) {
	list := []*controlapi.BuildHistoryRecord{{Ref: "abc1"}, {Ref: "abc2"}, {Ref: "abc"}, {Ref: "xyz"}}
	for id, want := range map[string]string{"abc": "abc", "abc1": "abc1", "x": "xyz"} {
		if r, err := match(list, id); err != nil || r.Ref != want {
			t.Errorf("%s: %v, %v; want %s", id, r, err, want)
		}
	}
	if _, err := match(list, "ab"); err == nil || errors.Is(err, ErrNone) {
		t.Errorf("an id of several: %v", err)
	}
	if _, err := match(list, "q"); !errors.Is(err, ErrNone) {
		t.Errorf("an id of none: %v", err)
	}
	if _, err := match(list, ""); err == nil {
		t.Error("an empty id is taken")
	}
}

func TestName(t *testing.T) {
	for want, r := range map[string]*controlapi.BuildHistoryRecord{
		"app:1":         {Exporters: []*controlapi.Exporter{{Type: "local"}, {Type: "image", Attrs: map[string]string{"name": "app:1,app:2"}}}},
		"repo":          {FrontendAttrs: map[string]string{"context": "https://example.com/team/repo.git#main:sub"}},
		"Dockerfile":    {FrontendAttrs: map[string]string{"context": "http://buildkit-session/abc"}},
		"D.x (release)": {FrontendAttrs: map[string]string{"filename": "D.x", "target": "release"}},
		"web":           {FrontendAttrs: map[string]string{"vcs:localdir:context": "services/web"}},
	} {
		if got := Name(r); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
