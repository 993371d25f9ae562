package e2e

import (
	"strings"
	"sync"
)

// watch keeps what a program prints and tells when it has printed something.
type watch struct {
	mu   sync.Mutex
	all  strings.Builder
	want string
	seen chan struct{} // closed when want was printed
}

// watched returns a watch and what is closed when it was told want.
func watched(want string) (*watch, <-chan struct{}) {
	w := &watch{}
	return w, w.then(want)
}

// then returns what is closed when want was printed, before or after now.
func (w *watch) then(want string) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.want, w.seen = want, make(chan struct{})
	seen := w.seen
	w.look()
	return seen
}

func (w *watch) look() {
	if w.seen != nil && strings.Contains(w.all.String(), w.want) {
		close(w.seen)
		w.seen = nil
	}
}

func (w *watch) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all.Write(b)
	w.look()
	return len(b), nil
}

func (w *watch) Close() error { return nil }

func (w *watch) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all.String()
}
