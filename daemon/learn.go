package daemon

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/secrets"
	"github.com/slipwaybuild/slipway/solver/ops"
)

const (
	// learnFirst is how long steps wait for the client to tell the secrets that they name, learnLast how long the outcome does.
	learnFirst = 5 * time.Second
	learnLast  = time.Minute
)

// lessons are the secrets that the steps of a build name, asked for before the steps run: a step that is in the cache asks for none, and one
// that runs earlier may have come by the value in another way, as from the client's own files. The zero value is ready.
type lessons struct {
	mu    sync.Mutex
	asked map[string]<-chan struct{} // closed when there is an answer
}

// learn has the guard hear of the secrets that a graph's steps name. It returns when the client has answered, or takes long.
func (b *build) learn(ctx context.Context, g *ops.Graph) {
	var answers []<-chan struct{}
	for _, s := range g.Use().Secrets {
		answers = append(answers, b.lessons.ask(s.ID, func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), learnLast)
			defer cancel()
			defer context.AfterFunc(b.life, cancel)()
			// Whoever needs the value asks for it and tells what is wrong.
			_, err := secrets.Get(ctx, b.sessions, s.ID)
			if err != nil && !errors.Is(err, secrets.ErrNotFound) && !errors.Is(err, session.ErrNoSession) {
				b.engine.log.Debug("learn a secret of a build", "ref", b.ref, "id", s.ID, "error", err)
			}
		}))
	}
	wait(ctx, learnFirst, answers)
}

// learned waits until the client has answered all that it was asked.
func (b *build) learned(ctx context.Context) {
	b.lessons.mu.Lock()
	var answers []<-chan struct{}
	for _, a := range b.lessons.asked {
		answers = append(answers, a)
	}
	b.lessons.mu.Unlock()
	wait(ctx, learnLast, answers)
}

// ask runs a question once for an id.
func (l *lessons) ask(id string, question func()) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a, ok := l.asked[id]; ok {
		return a
	}
	if l.asked == nil {
		l.asked = map[string]<-chan struct{}{}
	}
	answer := make(chan struct{})
	l.asked[id] = answer
	go func() {
		defer close(answer)
		question()
	}()
	return answer
}

func wait(ctx context.Context, limit time.Duration, answers []<-chan struct{}) {
	if len(answers) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for _, a := range answers {
		select {
		case <-a:
		case <-ctx.Done():
			return
		}
	}
}
