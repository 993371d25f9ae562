package exporter

import (
	"testing"

	"github.com/slipwaybuild/slipway/exporter/attrs"
)

func TestEpochPrecedence(t *testing.T) {
	t.Parallel()
	n := func(v int64) *int64 { return &v }
	all := map[string][]byte{"source.date.epoch": []byte("3"), "source.date.epoch/linux/arm64": []byte("4")}
	for _, c := range []struct {
		name string
		own  attrs.Epoch
		in   Input
		want int64 // -1 for none
	}{
		{"nobody says", attrs.Epoch{}, Input{}, -1},
		{"the output", attrs.Epoch{Given: true, Seconds: n(1)}, Input{SourceDateEpoch: n(2), Metadata: all}, 1},
		{"the output wants none", attrs.Epoch{Given: true}, Input{SourceDateEpoch: n(2), Metadata: all}, -1},
		{"the build", attrs.Epoch{}, Input{SourceDateEpoch: n(2), Metadata: all}, 2},
		{"the frontend for the platform", attrs.Epoch{}, Input{Metadata: all}, 4},
		{"the frontend", attrs.Epoch{}, Input{Metadata: map[string][]byte{"source.date.epoch": []byte("3")}}, 3},
		{"empty from the frontend", attrs.Epoch{}, Input{Metadata: map[string][]byte{"source.date.epoch": {}}}, -1},
	} {
		got, err := c.in.Epoch(c.own, "linux/arm64")
		switch {
		case err != nil:
			t.Errorf("%s: %v", c.name, err)
		case got == nil && c.want != -1, got != nil && got.Unix() != c.want:
			t.Errorf("%s: got %v, want %d", c.name, got, c.want)
		}
	}
	if _, err := (Input{Metadata: map[string][]byte{"source.date.epoch": []byte("x")}}).Epoch(attrs.Epoch{}, ""); err == nil {
		t.Error("nonsense from the frontend: no error")
	}
}
