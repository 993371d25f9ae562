package source

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

type closing struct{ closed int }

func (c *closing) Close() error { c.closed++; return nil }

func TestAnswersAskOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a Answers
		asked := 0
		gate := make(chan struct{})
		ask := func(context.Context) (*closing, error) {
			asked++
			<-gate
			return &closing{}, nil
		}
		got := make(chan *closing, 2)
		for range 2 {
			go func() {
				v, err := Answer(t.Context(), &a, "k", ask)
				if err != nil {
					t.Error(err)
				}
				got <- v
			}()
		}
		synctest.Wait()
		close(gate)
		v := <-got
		if w := <-got; v != w || asked != 1 {
			t.Fatalf("two askers got %p and %p after %d questions", v, w, asked)
		}
		if err := a.Close(); err != nil || v.closed != 1 {
			t.Fatalf("Close = %v, closed %d times", err, v.closed)
		}
		if _, err := Answer(t.Context(), &a, "k", ask); !errors.Is(err, errAnswersClosed) {
			t.Fatalf("answer after Close: %v", err)
		}
	})
}

func TestAnswersForgetErrors(t *testing.T) {
	var a Answers
	fail := errors.New("no")
	if _, err := Answer(t.Context(), &a, "k", func(context.Context) (int, error) { return 0, fail }); !errors.Is(err, fail) {
		t.Fatal(err)
	}
	v, err := Answer(t.Context(), &a, "k", func(context.Context) (int, error) { return 7, nil })
	if v != 7 || err != nil {
		t.Fatalf("second answer %d, %v", v, err)
	}
	if v, err := Answer(t.Context(), nil, "k", func(context.Context) (int, error) { return 8, nil }); v != 8 || err != nil {
		t.Fatalf("without memory %d, %v", v, err)
	}
}

func TestAnswersClosedWhileAsking(t *testing.T) {
	var a Answers
	c := &closing{}
	_, err := Answer(t.Context(), &a, "k", func(context.Context) (*closing, error) {
		return c, a.Close()
	})
	if !errors.Is(err, errAnswersClosed) || c.closed != 1 {
		t.Fatalf("late answer: %v, closed %d times", err, c.closed)
	}
}
