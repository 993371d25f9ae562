package samehost

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/slipwaybuild/slipway/session"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// handshakeTime is how long each side may take to say its part.
const handshakeTime = 5 * time.Second

// New returns the attachable that passes descriptors of what is offered.
func New(o Offer) session.Attachable { return &client{o} }

type client struct{ o Offer }

// Register implements [session.Attachable].
func (c *client) Register(s *grpc.Server) { s.RegisterService(&desc, c) }

// pass opens what is asked for and sends it.
func (c *client) pass(ctx context.Context, a ask) error {
	if len(a.Nonce) != nonceSize {
		return status.Error(codes.InvalidArgument, "nonce of another length")
	}
	switch {
	case a.Dir != nil:
		return c.passDir(ctx, nonce(a.Nonce), *a.Dir)
	case a.Output != nil:
		return c.passTarget(ctx, nonce(a.Nonce), *a.Output, a.About)
	}
	return status.Error(codes.InvalidArgument, "nothing asked for")
}

func (c *client) passDir(ctx context.Context, n nonce, name string) error {
	src, ok := c.o.Sources[name]
	if !ok {
		return status.Errorf(codes.NotFound, "no access allowed to dir %q", name)
	}
	f, err := openDir(src.Path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // the daemon has its own
	var flags byte
	if src.ResetOwner {
		flags |= flagResetOwner
	}
	conn, err := c.send(ctx, n, kindDir, flags, f.Fd())
	if err != nil {
		return err
	}
	return conn.Close()
}

// openDir opens a directory, following links to it.
func openDir(path string) (*os.File, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	return os.OpenFile(real, os.O_RDONLY|unix.O_DIRECTORY, 0)
}

func (c *client) passTarget(ctx context.Context, n nonce, id int, about map[string]string) error {
	to, ok := c.o.Targets[id]
	if !ok {
		return status.Errorf(codes.NotFound, "exporter %d not found", id)
	}
	if to.Open != nil {
		return c.passFile(ctx, n, to, about)
	}
	if err := os.MkdirAll(to.Dir, 0o755); err != nil {
		return fmt.Errorf("make target directory: %w", err)
	}
	f, err := os.OpenFile(to.Dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("open target directory: %w", err)
	}
	defer func() { _ = f.Close() }() // the daemon has its own
	var flags byte
	if to.KeepOwner {
		flags |= flagKeepOwner
	}
	if to.Delete {
		flags |= flagDelete
	}
	conn, err := c.send(ctx, n, kindTree, flags, f.Fd())
	if err != nil {
		return err
	}
	return conn.Close()
}

func (c *client) passFile(ctx context.Context, n nonce, to Target, about map[string]string) error {
	f, err := to.Open(about)
	if err != nil {
		return err
	}
	if f == nil {
		conn, err := c.send(ctx, n, kindHave, 0)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	err = c.lend(ctx, n, f)
	if eerr := f.End(err); err == nil {
		err = eerr
	}
	return err
}

// lend passes a file and waits until the daemon has written it.
func (c *client) lend(ctx context.Context, n nonce, f File) error {
	var conn *net.UnixConn
	var err error
	if cerr := f.Control(func(fd uintptr) { conn, err = c.send(ctx, n, kindStream, 0, fd) }); cerr != nil {
		return cerr
	}
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // all was said on it
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	_ = conn.SetDeadline(time.Time{})
	var word [1]byte
	_, err = io.ReadFull(conn, word[:])
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return errors.New("the daemon gave the export up before its end")
	case word[0] != answerWhole:
		return errors.New("the daemon did not finish the export")
	}
	return nil
}

// send connects to the daemon and passes descriptors. The connection is the caller's, within a deadline.
func (c *client) send(ctx context.Context, n nonce, k kind, flags byte, fds ...uintptr) (*net.UnixConn, error) {
	conn, err := c.o.Dial(ctx)
	if err != nil {
		return nil, err
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(ErrUnavailable, conn.Close())
	}
	stop := context.AfterFunc(ctx, func() { _ = u.Close() })
	defer stop()
	if err := offer(u, n, k, flags, fds); err != nil {
		_ = u.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("pass a descriptor to the daemon: %w", err)
	}
	return u, nil
}

func offer(u *net.UnixConn, n nonce, k kind, flags byte, fds []uintptr) error {
	_ = u.SetDeadline(time.Now().Add(handshakeTime))
	req := &http.Request{
		Method: http.MethodPost, URL: &url.URL{Path: Path}, Host: "localhost", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Connection": {"Upgrade"}, "Upgrade": {Protocol}},
	}
	if err := req.Write(u); err != nil {
		return err
	}
	br := bufio.NewReader(u)
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close() // an upgrade has none, and of a refusal the status is enough
	if resp.StatusCode != http.StatusSwitchingProtocols || br.Buffered() > 0 {
		return fmt.Errorf("%w: the daemon answers %s", ErrUnavailable, resp.Status)
	}
	var rights []byte
	if len(fds) > 0 {
		list := make([]int, len(fds))
		for i, fd := range fds {
			list[i] = int(fd)
		}
		rights = unix.UnixRights(list...)
	}
	msg := append(n[:], byte(k), flags)
	if _, _, err := u.WriteMsgUnix(msg, rights, nil); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(u, answer[:]); err != nil {
		return err
	}
	if answer[0] != answerTaken {
		return fmt.Errorf("%w: the daemon refused", ErrUnavailable)
	}
	return nil
}
