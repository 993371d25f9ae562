package filesync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/moby/buildkit/session/filesync"
	"github.com/slipwaybuild/slipway/session"
	"github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc/metadata"
)

// Request says what [Sync] wants of a client.
type Request struct {
	// Dir is the name of the directory, as the client offers it.
	Dir string
	// Include, Exclude and Follow select paths as BuildKit's local source does: patterns in .dockerignore's language, and
	// symlinks to follow on the client. Empty Include takes all.
	Include, Exclude, Follow []string
	// Hints asks for change hints; only our own client answers. See [File].
	Hints bool
	// Want says whether the contents of a regular file are needed. It is called as STATs come in, ahead of Next, from one
	// goroutine. hint is "" if the client gave none. nil wants all, and then small files may travel faster.
	Want func(st *types.Stat, hint string) bool
	// Limits bounds what the client may send.
	Limits Limits
	// Progress is told the bytes received since the last call. May be nil. It must not block.
	Progress func(n int64)
}

// File is one entry of a client's directory.
type File struct {
	// Stat describes it. For a regular file Size is what Content gives. The receiver of the File may keep it.
	Stat *types.Stat
	// Hint is equal to an earlier one of the same path only if the file was not changed since. "" says nothing. It is good for
	// one client only: another may send the same by chance or on purpose.
	Hint string
	// Content is nil unless the file was wanted. It is valid until the next call of Next and need not be read.
	Content io.Reader
}

// Transfer is a running [Sync]: it yields the entries in walk order. It belongs to one goroutine.
type Transfer struct {
	r      *receiver
	cancel context.CancelFunc
	dir    string
	err    error // what Next gave in the end
	done   chan struct{}
}

// Sync reads a directory of a client. The caller closes what it gets.
//
// The client never waits for the consumer of one file with another file in the way: at most a window of files is asked for at a
// time, and all but the one being consumed fit in memory.
func Sync(ctx context.Context, c session.Caller, req Request) (*Transfer, error) {
	if !c.Supports(methodSync) {
		return nil, fmt.Errorf("sync %q: %w", req.Dir, session.ErrNotSupported)
	}
	md := metadata.MD{}
	encode(md, keyDirName, []string{req.Dir})
	encode(md, keyInclude, req.Include)
	encode(md, keyExclude, req.Exclude)
	encode(md, keyFollow, req.Follow)
	if req.Hints {
		md.Set(keyHints, "1")
	}
	if req.Want == nil {
		md.Set(keyInline, strconv.Itoa(inlineSize))
	}
	if err := checkHeader(md); err != nil {
		return nil, fmt.Errorf("sync %q: %w", req.Dir, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	stream, err := filesync.NewFileSyncClient(c.Conn()).DiffCopy(metadata.NewOutgoingContext(ctx, md))
	if err != nil {
		cancel()
		return nil, fmt.Errorf("sync %q: %w", req.Dir, err)
	}
	return startTransfer(req, stream, cancel), nil
}

// checkHeader refuses what gRPC peers refuse with a useless message: header lists of more than 16 MiB by default.
func checkHeader(md metadata.MD) error {
	n := 0
	for k, vs := range md {
		for _, v := range vs {
			n += len(k) + len(v) + 32
		}
	}
	if n > 15<<20 {
		return &ProtocolError{Reason: fmt.Sprintf("patterns of %d bytes do not fit into a request", n)}
	}
	return nil
}

// packetStream is the daemon's end of DiffCopy.
type packetStream interface {
	Send(*types.Packet) error
	Recv() (*types.Packet, error)
	CloseSend() error
}

func startTransfer(req Request, stream packetStream, cancel context.CancelFunc) *Transfer {
	t := &Transfer{r: newReceiver(req), cancel: cancel, dir: req.Dir, done: make(chan struct{})}
	requests := make(chan struct{})
	go func() {
		defer close(requests)
		t.request(stream)
	}()
	go func() {
		defer close(t.done)
		t.receive(stream)
		<-requests
	}()
	return t
}

// receive hands packets to the state machine until the stream ends.
func (t *Transfer) receive(stream packetStream) {
	for {
		p, err := stream.Recv()
		if err != nil {
			t.r.end(err)
			return
		}
		if err := t.r.handle(p); err != nil {
			t.r.refuse(err)
			t.drain(stream)
			return
		}
	}
}

// drain gives the peer a moment to hear the reason and hang up, and then gives it up.
func (t *Transfer) drain(stream packetStream) {
	timer := time.AfterFunc(farewell, t.cancel)
	defer timer.Stop()
	for {
		if _, err := stream.Recv(); err != nil {
			return
		}
	}
}

// farewell is how long a peer that was refused may take to end its side.
const farewell = time.Second

// request sends what the state machine has to say. It is a goroutine of its own so that a peer that is slow to read requests
// stops nothing else.
func (t *Transfer) request(stream packetStream) {
	for {
		p, ok := t.r.outgoing()
		if !ok {
			return
		}
		if err := stream.Send(p); err != nil {
			return // Recv reports why
		}
		if p.Type == types.PACKET_FIN || p.Type == types.PACKET_ERR {
			_ = stream.CloseSend() // a broken stream shows in Recv
			return
		}
	}
}

// Next returns the next entry, or io.EOF after the last, when the client has agreed that all is done.
func (t *Transfer) Next(ctx context.Context) (*File, error) {
	if t.err != nil {
		return nil, t.err
	}
	stop := context.AfterFunc(ctx, func() { t.r.end(context.Cause(ctx)) })
	defer stop()
	f, err := t.r.next()
	if err == nil {
		return f, nil
	}
	if errors.Is(err, io.EOF) {
		select {
		case <-t.done:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	if !errors.Is(err, io.EOF) {
		err = fmt.Errorf("sync %q: %w", t.dir, err)
		t.cancel()
	}
	t.err = err
	return nil, err
}

// Close ends the transfer, finished or not, and waits until nothing of it runs.
func (t *Transfer) Close() error {
	t.r.end(errClosed)
	t.cancel()
	<-t.done
	return nil
}

var errClosed = errors.New("transfer is closed")
