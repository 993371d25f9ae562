package engineapi

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// bodyPatience is how long a client that sends a context may send nothing of it. What makes the context may be slow, such as a
// command that is piped into docker; a client that is gone must not hold a build for ever.
const bodyPatience = 30 * time.Minute

var errBodyStopped = errors.New("the build ended before its context was read")

// requestBody reads a request's body on behalf of a build: in another goroutine than the request's, which therefore calls Stop
// before it returns. Read and Close are for one goroutine at a time.
type requestBody struct {
	r        io.ReadCloser
	ctrl     *http.ResponseController
	patience time.Duration
	stopping atomic.Bool
	ended    chan struct{} // closed when nothing will be read any more

	mu   sync.Mutex // held while reading
	err  error      // what Read returns from now on
	once sync.Once
}

func newRequestBody(w http.ResponseWriter, r *http.Request) *requestBody {
	return &requestBody{r: r.Body, ctrl: http.NewResponseController(w), patience: bodyPatience, ended: make(chan struct{})}
}

// Read reads the body. Connections without deadlines, as in tests, are waited for.
func (b *requestBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return 0, b.err
	}
	_ = b.ctrl.SetReadDeadline(time.Now().Add(b.patience))
	if b.stopping.Load() {
		return 0, errBodyStopped
	}
	n, err := b.r.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) && !b.stopping.Load() {
		err = withStatus(http.StatusRequestTimeout, "the client sent nothing of its context for %s", b.patience)
	}
	if err != nil {
		b.end(err)
	}
	return n, err
}

// end is called with the lock. After a body that was read to its end the connection lives on; what is left of any other must
// not be waited for.
func (b *requestBody) end(err error) {
	if b.err == nil {
		b.err = err
	}
	deadline := time.Unix(1, 0)
	if errors.Is(b.err, io.EOF) {
		deadline = time.Time{}
	}
	_ = b.ctrl.SetReadDeadline(deadline)
	b.once.Do(func() { close(b.ended) })
}

// Close says that no more is wanted. It does not close the request's body, which is the server's.
func (b *requestBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end(io.ErrClosedPipe)
	return nil
}

// Stop cuts reading off, waiting for a Read under way. Without it the body was read to its end, nothing happens.
func (b *requestBody) Stop() {
	select {
	case <-b.ended:
		return
	default:
	}
	b.stopping.Store(true)
	_ = b.ctrl.SetReadDeadline(time.Unix(1, 0)) // ends a Read under way
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end(errBodyStopped)
}
