package config

import "testing"

func TestContainerd(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct{ on, undecided bool }{
		"":                                         {},
		"[worker.containerd]\nenabled = true":      {on: true},
		"[worker.containerd]\naddress = \"/x\"":    {undecided: true},
		"[worker.containerd]\nenabled = false":     {},
		"[worker.containerd]\nnamespace = \"k8s\"": {undecided: true},
		"[worker.containerd]\nenabled = true\naddress = \"unix:///x\"\nsnapshotter = \"native\"": {on: true},
	} {
		c, warnings, err := Parse(text)
		if err != nil || len(warnings) != 0 {
			t.Errorf("%q: warnings %q, error %v", text, warnings, err)
			continue
		}
		if w := c.Worker.Containerd; w.On() != want.on || w.Undecided() != want.undecided {
			t.Errorf("%q: %+v", text, w)
		}
	}
}
