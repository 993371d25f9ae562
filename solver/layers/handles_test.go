package layers

import (
	"context"
	"errors"
	"testing"
)

func testHandles(keep int) (hs *handles[string, int], open map[int]string) {
	open = map[int]string{}
	n := 0
	hs = newHandles(keep, func(k string) (int, error) {
		if k == "bad" {
			return 0, errors.New("cannot open")
		}
		n++
		open[n] = k
		return n, nil
	}, func(v int) error {
		if _, ok := open[v]; !ok {
			return errors.New("closed twice")
		}
		delete(open, v)
		return nil
	})
	return hs, open
}

func TestHandlesAreShared(t *testing.T) {
	hs, open := testHandles(1)
	take := func(k string) (int, func() error) {
		t.Helper()
		v, release, err := hs.acquire(context.Background(), k)
		if err != nil {
			t.Fatal(err)
		}
		return v, release
	}
	a1, rel1 := take("a")
	a2, rel2 := take("a")
	if a1 != a2 {
		t.Error("opened twice")
	}
	ok(t, rel1())
	ok(t, rel1()) // releasing again does nothing
	ok(t, rel2())
	if a3, rel := take("a"); a3 != a1 {
		t.Error("an idle one was not kept")
	} else {
		ok(t, rel())
	}
	_, relB := take("b")
	ok(t, relB()) // one too many are idle
	if len(open) != 1 || open[2] != "b" {
		t.Errorf("open: %v", open)
	}
	b, relB := take("b")
	ok(t, hs.drop("b"))
	if again, rel := take("b"); again == b {
		t.Error("what was dropped was shared")
	} else {
		ok(t, rel())
	}
	if open[b] != "b" {
		t.Error("closed under its user")
	}
	ok(t, relB())
	if _, _, err := hs.acquire(context.Background(), "bad"); err == nil {
		t.Error("no error")
	}
	ok(t, hs.drop("nothing"))
	ok(t, hs.closeIdle())
	if len(open) != 0 || len(hs.table) != 0 {
		t.Errorf("left: %v %v", open, hs.table)
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
