package http

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/moby/buildkit/util/pgpsign"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/progress"
	"github.com/slipwaybuild/slipway/solver/source"
	"github.com/slipwaybuild/slipway/solver/source/onefile"
)

const downloadPattern = "download-*"

// DigestMismatchError is a file that is not the one asked for.
type DigestMismatchError struct {
	URL       string // without credentials
	Got, Want digest.Digest
}

func (e *DigestMismatchError) Error() string {
	return fmt.Sprintf("digest mismatch for %s: %s (expected: %s)", e.URL, e.Got, e.Want)
}

// TooLargeError is a file longer than allowed.
type TooLargeError struct {
	URL   string // without credentials
	Limit int64  // bytes
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("get %s: larger than %d bytes", e.URL, e.Limit)
}

// store downloads body, checks it, and makes it a layer. It sets p.ref and p.file, and completes r.
func (p *pinned) store(ctx context.Context, env source.Env, body io.Reader, length int64, r *response) error {
	f, err := os.CreateTemp(p.s.o.Root, downloadPattern)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // nobody reads it after this
	if err := os.Remove(f.Name()); err != nil {
		return err
	}
	size, sum, err := p.download(ctx, env, f, body, length)
	if err != nil {
		return err
	}
	if want := p.q.checksum; want != "" && sum != want {
		return &DigestMismatchError{p.q.shown, sum, want}
	}
	modified := parseTime(r.LastModified)
	if modified.IsZero() {
		modified = time.Unix(0, 0)
	}
	ref, err := onefile.Pack(ctx, p.s.o.Store, onefile.File{
		Name: r.Filename, Perm: p.q.perm, UID: p.q.uid, GID: p.q.gid, Size: size, ModTime: modified, Content: f,
	}, layers.Labels{Description: "http url " + p.q.shown, Use: layers.UseRegular})
	if err != nil {
		return fmt.Errorf("store %s: %w", p.q.shown, err)
	}
	r.Layer, r.Digest = ref.IDs()[0], sum
	p.ref, p.file = ref, r.file()
	p.fileOfChecksum()
	return nil
}

// download writes body to f and returns its length and digest.
func (p *pinned) download(ctx context.Context, env source.Env, f *os.File, body io.Reader, length int64) (int64, digest.Digest, error) {
	limit := p.s.o.Limit
	if limit > 0 {
		if length > limit {
			return 0, "", &TooLargeError{p.q.shown, limit}
		}
		body = io.LimitReader(body, limit+1)
	}
	algorithm := digest.SHA256
	if p.q.checksum != "" {
		algorithm = p.q.checksum.Algorithm()
	}
	d := algorithm.Digester()
	line := newLine(env.Progress, "downloading "+p.file.Filename, length)
	n, err := io.Copy(io.MultiWriter(f, d.Hash(), line), body)
	line.done()
	switch {
	case err != nil && ctx.Err() != nil:
		return 0, "", context.Cause(ctx)
	case err != nil:
		return 0, "", fmt.Errorf("get %s: %w", p.q.shown, bare(err))
	case limit > 0 && n > limit:
		return 0, "", &TooLargeError{p.q.shown, limit}
	}
	return n, d.Digest(), nil
}

// line is a line of progress that counts what is written to it.
type line struct {
	w       progress.Writer // may be nil
	status  progress.Status
	written time.Time
}

func newLine(w progress.Writer, id string, total int64) *line {
	now := time.Now()
	return &line{w: w, status: progress.Status{ID: id, Total: max(total, 0), Started: &now}}
}

func (l *line) Write(b []byte) (int, error) {
	l.status.Current += int64(len(b))
	if now := time.Now(); now.Sub(l.written) >= 100*time.Millisecond {
		l.write(now)
	}
	return len(b), nil
}

func (l *line) done() {
	now := time.Now()
	l.status.Completed = &now
	l.write(now)
}

func (l *line) write(now time.Time) {
	l.written, l.status.Timestamp = now, now
	if l.w != nil {
		l.w.Status(l.status)
	}
}

// read gives do the file that was stored.
func (p *pinned) read(ctx context.Context, do func(io.Reader) error) (err error) {
	t, err := p.s.o.Store.Tree(ctx, p.ref)
	if err != nil {
		return err
	}
	c, err := t.Open(ctx, p.file.Filename)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return do(io.NewSectionReader(c, 0, c.Size()))
}

// verifySignature checks the OpenPGP signature of the file that was stored.
func (p *pinned) verifySignature(ctx context.Context) error {
	return p.read(ctx, func(r io.Reader) error {
		return pgpsign.VerifyArmoredDetachedSignature(r, p.q.signature.sig, bytes.Clone(p.q.signature.pubKey), nil)
	})
}
