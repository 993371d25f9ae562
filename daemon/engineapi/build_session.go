package engineapi

import (
	"context"
	"net"
	"sync"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/upload"
)

// requestSession is a session that the daemon holds with itself, so that what came with a request (its body, its accounts) is to
// a build what a client's session would have brought.
type requestSession struct {
	id    string
	close func()
}

// openSession offers services to builds of the client that ctx is of, until it is closed.
func (a *api) openSession(ctx context.Context, services ...session.Attachable) *requestSession {
	s := session.New(session.Options{Name: "request", Logger: a.Logger})
	s.Allow(services...)
	// Its life is that of the request's handler, which closes it; a build that winds down may still need it.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() {
		err := s.Run(ctx, func(_ context.Context, _ string, meta map[string][]string) (net.Conn, error) {
			near, far := net.Pipe()
			wg.Go(func() { _ = a.Sessions.HandleConn(ctx, far, meta) }) // why it ended is told to who needed it
			return near, nil
		})
		if err != nil && ctx.Err() == nil {
			a.Logger.Debug("session of a request", "error", err)
		}
	})
	return &requestSession{id: s.ID(), close: func() {
		_ = s.Close() // has no error to tell
		cancel()
		wg.Wait()
	}}
}

// bring makes what came with a request available to its build: the body, if there is one, under the URL it returns, and accounts.
// It returns no session if there is nothing. The session must be closed.
func (a *api) bring(ctx context.Context, body *requestBody, acc accounts) (s *requestSession, url string) {
	var services []session.Attachable
	closeUpload := func() {}
	if body != nil {
		up := upload.New()
		url = up.Add(recognisable(body))
		services = append(services, up)
		closeUpload = func() { _ = up.Close() } // a requestBody closes without error
	}
	if len(acc) > 0 {
		services = append(services, &accountService{accounts: acc})
	}
	if len(services) == 0 {
		return nil, ""
	}
	s = a.openSession(ctx, services...)
	closeSession := s.close
	s.close = func() {
		if body != nil {
			body.Stop()
		}
		closeUpload()
		closeSession()
	}
	return s, url
}
