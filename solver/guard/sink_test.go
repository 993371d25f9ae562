package guard

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/slipwaybuild/slipway/solver/progress"
)

// told is all text that a story holds.
func told(list []progress.Event) string {
	var b strings.Builder
	for _, ev := range list {
		switch {
		case ev.Log != nil:
			fmt.Fprintf(&b, "[%s %d %s]", ev.Log.Vertex, ev.Log.Stream, ev.Log.Data)
		case ev.Vertex != nil:
			fmt.Fprintf(&b, "[%s %s %s]", ev.Vertex.ID, ev.Vertex.Name, ev.Vertex.Error)
		default:
			text, _ := json.Marshal(ev)
			b.Write(text)
			if w := ev.Warning; w != nil {
				fmt.Fprintf(&b, "[%s %s %v]", w.Short, w.Detail, w.SourceInfo)
			}
		}
	}
	return b.String()
}

func TestSinkMasksEverything(t *testing.T) {
	const secret = "the-secret-value"
	v := values("id", secret)
	mem := &progress.Memory{}
	s := NewSink(mem, v)
	now := time.Now()
	s.Append(progress.Event{Vertex: &progress.Vertex{ID: "a", Name: "RUN echo " + secret, Group: &progress.Group{Name: secret}, Started: &now}})
	s.Append(progress.Event{Log: &progress.Log{Vertex: "a", Stream: 1, Data: []byte("out the-sec")}})
	s.Append(progress.Event{Log: &progress.Log{Vertex: "a", Stream: 2, Data: []byte("err the-secret-")}})
	s.Append(progress.Event{Log: &progress.Log{Vertex: "b", Stream: 1, Data: []byte("ret-value")}})
	s.Append(progress.Event{Log: &progress.Log{Vertex: "a", Stream: 1, Data: []byte("ret-value!\n")}})
	s.Append(progress.Event{Status: &progress.Status{Vertex: "a", ID: "get " + secret, Name: secret}})
	s.Append(progress.Event{Warning: &progress.Warning{
		Short: []byte(secret), Detail: [][]byte{[]byte(secret)}, URL: secret, SourceInfo: &progress.SourceInfo{Data: []byte(secret)},
	}})
	s.Append(progress.Event{Trace: &progress.Trace{Reason: secret, Parts: []progress.Part{{Name: secret, Value: secret}}}})
	s.Append(progress.Event{Vertex: &progress.Vertex{ID: "a", Name: "RUN echo " + secret, Error: "exit of " + secret, Completed: &now}})
	got := told(mem.Events())
	if strings.Contains(got, secret) {
		t.Errorf("told: %s", got)
	}
	for _, want := range []string{"[a 1 out ]", "[a 1 ***!\n]", "[a 2 the-secret-]", "[b 1 ret-value]", "[a RUN echo *** exit of ***]"} {
		if !strings.Contains(got, want) {
			t.Errorf("not told: %q in %s", want, got)
		}
	}
	if i, j := strings.Index(got, "[a 2 the-secret-]"), strings.Index(got, "exit of"); i > j {
		t.Error("output comes after the end of its step")
	}
}

func TestSinkWithoutValuesChangesNothing(t *testing.T) {
	mem := &progress.Memory{}
	s := NewSink(mem, &Values{})
	l := &progress.Log{Vertex: "a", Stream: 1, Data: []byte("x")}
	s.Append(progress.Event{Log: l})
	if ev := mem.Events(); len(ev) != 1 || ev[0].Log != l {
		t.Errorf("%+v", ev)
	}
}

func TestMaskWriter(t *testing.T) {
	mem := &progress.Memory{}
	w, flush := MaskWriter(progress.NewWriter(mem, "step"), values("id", "the-secret-value"))
	w.Log(progress.Stdout, []byte("a the-secret"))
	w.Log(progress.Stdout, []byte("-value the-sec"))
	w.Warn(progress.Warning{Short: []byte("the-secret-value")})
	flush()
	if got := told(mem.Events()); strings.Contains(got, "secret-value") || !strings.HasPrefix(got, "[step 1 a ][step 1 *** ]") || !strings.HasSuffix(got, "[step 1 the-sec]") {
		t.Errorf("%s", got)
	}
}
