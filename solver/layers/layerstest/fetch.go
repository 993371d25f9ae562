package layerstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/layers"
)

var fetchCases = map[string]func(*Bench){
	"every compression":        everyCompression,
	"wrong compressed digest":  wrongCompressed,
	"wrong diffID":             wrongDiffID,
	"corrupt":                  corrupt,
	"a cache's fault":          cachesFault,
	"truncated":                truncated,
	"longer than said":         tooLong,
	"resumed":                  resumed,
	"resumed from the start":   resumedFromStart,
	"given up":                 givenUp,
	"bomb":                     bomb,
	"once for all":             onceForAll,
	"last one leaving cancels": lastLeaves,
	"another's credentials":    anotherFetcher,
	"the one who leaves":       leaverDoesNotHarm,
	"another place":            anotherPlace,
	"already here":             alreadyHere,
	"refused":                  refused,
}

func (b *Bench) addRemote(f *server, diffID digest.Digest) *layers.Ref {
	b.Helper()
	r, err := b.S.AddRemote(b.Context(), f.remote(diffID))
	b.OK(err)
	return b.Owned(r)
}

func someTar(b *Bench) ([]byte, digest.Digest) {
	b.Helper()
	return Tar(b, Text("x", "1"), Text("big", noise(b, 100_000)))
}

func everyCompression(b *Bench) {
	for _, pack := range []func(data []byte) []byte{
		func(data []byte) []byte { return data },
		func(data []byte) []byte { return gzipped(b, data) },
		func(data []byte) []byte { return zstded(b, data) },
		func(data []byte) []byte { return append(gzipped(b, data[:1000]), gzipped(b, data[1000:])...) },
	} {
		data, diffID := someTar(b)
		f := newServer(pack(data))
		r := b.addRemote(f, diffID)
		var p lines
		b.OK(b.S.Fetch(b.Context(), r, f, &p))
		names(b, b.Snapshot(r), ".", "x", "big")
		if k := r.Layers()[0].Kind; k != layers.Blob {
			b.Errorf("kind %s", k)
		}
		s, ok := p.last[f.desc.Digest.Encoded()[:12]]
		if !ok || s.Completed == nil || s.Started == nil || s.Total != f.desc.Size || s.Current != f.desc.Size || !p.names["downloading"] || !p.names["extracting"] {
			b.Errorf("progress %+v %v", s, p.names)
		}
	}
}

// fetchFails expects a Fetch to fail without leaving anything.
func (b *Bench) fetchFails(r *layers.Ref, f layers.Fetcher) error {
	b.Helper()
	var p lines
	err := b.S.Fetch(b.Context(), r, f, &p)
	if err == nil {
		b.Fatal("nothing was wrong")
	}
	if n := countFiles(b, "tmp") + countFiles(b, "blobs"); n != 0 {
		b.Errorf("%d files are left", n)
	}
	if _, err := b.S.Tree(b.Context(), r); !errors.Is(err, layers.ErrNotLocal) {
		b.Errorf("tree: %v", err)
	}
	for id, s := range p.last {
		if s.Completed == nil {
			b.Errorf("progress of %s does not end", id)
		}
	}
	return err
}

func wrongCompressed(b *Bench) {
	data, diffID := someTar(b)
	f := newServer(gzipped(b, data))
	f.desc.Digest = digest.FromString("other")
	err := b.fetchFails(b.addRemote(f, diffID), f)
	var mismatch *layers.DigestMismatchError
	if !errors.As(err, &mismatch) || mismatch.Want != f.desc.Digest {
		b.Errorf("got %v", err)
	}
}

func wrongDiffID(b *Bench) {
	data, diffID := someTar(b)
	f := newServer(gzipped(b, data))
	err := b.fetchFails(b.addRemote(f, digest.FromString("other")), f)
	var mismatch *layers.DigestMismatchError
	if !errors.As(err, &mismatch) || mismatch.Got != diffID {
		b.Errorf("got %v", err)
	}
}

// cachesFault: what a cache gives wrong is gone.
func cachesFault(b *Bench) {
	data, diffID := someTar(b)
	packed := gzipped(b, data)
	f := newServer(packed)
	f.data = bytes.Clone(packed)
	f.data[len(packed)/2] ^= 0xff
	r, err := b.S.AddRemote(b.Context(), layers.RemoteBlob{Ref: "example.com/cache", Descriptor: f.desc, DiffID: diffID, Cached: true})
	r = b.Owned(r)
	b.OK(err)
	if err := b.fetchFails(r, f); !errors.Is(err, layers.ErrNotFound) {
		b.Errorf("got %v", err)
	}
	if r.Lost() == nil {
		b.Error("the layer is not lost")
	}
}

func corrupt(b *Bench) {
	data, diffID := someTar(b)
	packed := gzipped(b, data)
	f := newServer(packed)
	for _, at := range []int{0, 20, len(packed) / 2, len(packed) - 6} { // the magic, the first header, contents, the checksum
		f.data = bytes.Clone(packed)
		f.data[at] ^= 0xff
		var mismatch *layers.DigestMismatchError
		if err := b.fetchFails(b.addRemote(f, diffID), f); !errors.As(err, &mismatch) || mismatch.Want != f.desc.Digest {
			b.Errorf("damaged at %d: got %v", at, err)
		}
	}
	packed[len(packed)/2] ^= 0xff
	f = newServer(packed) // the registry agrees with itself
	if err := b.fetchFails(b.addRemote(f, diffID), f); !strings.Contains(err.Error(), "example.com/image") {
		b.Errorf("got %v", err)
	}
	f = newServer([]byte("no tar at all, and not compressed either"))
	_ = b.fetchFails(b.addRemote(f, digest.FromString("z")), f)
}

func truncated(b *Bench) {
	data, diffID := someTar(b)
	f := newServer(gzipped(b, data))
	f.data = f.data[:len(f.data)/2]
	if err := b.fetchFails(b.addRemote(f, diffID), f); !errors.Is(err, io.ErrUnexpectedEOF) {
		b.Errorf("got %v", err)
	}
	short := gzipped(b, data)
	f = newServer(short[:len(short)/2]) // the registry agrees with itself
	if err := b.fetchFails(b.addRemote(f, digest.FromString("y")), f); !errors.Is(err, io.ErrUnexpectedEOF) {
		b.Errorf("got %v", err)
	}
}

func tooLong(b *Bench) {
	data, diffID := someTar(b)
	f := newServer(gzipped(b, data))
	f.data = append(f.data, make([]byte, 10_000)...)
	_ = b.fetchFails(b.addRemote(f, diffID), f)
}

func resumed(b *Bench) {
	data, diffID := someTar(b)
	f := &resumable{server: newServer(gzipped(b, data))}
	f.breakAt = []int{5000, 7000, 1}
	r := b.addRemote(f.server, diffID)
	b.OK(b.S.Fetch(b.Context(), r, f, nil))
	if got := fmt.Sprint(f.offsets); got != "[5000 12000 12001]" {
		b.Errorf("went on at %s", got)
	}
	names(b, b.Snapshot(r), ".", "x", "big")
}

func resumedFromStart(b *Bench) {
	data, diffID := someTar(b)
	f := newServer(gzipped(b, data))
	f.breakAt = []int{5000, 7000}
	r := b.addRemote(f, diffID)
	b.OK(b.S.Fetch(b.Context(), r, f, nil))
	if n := f.opened.Load(); n != 3 {
		b.Errorf("opened %d times", n)
	}
	names(b, b.Snapshot(r), ".", "x", "big")
}

// givenUp is a Fetcher that has tried again itself: to ask it anew would be a loop around a loop.
func givenUp(b *Bench) {
	data, diffID := someTar(b)
	f := newServer(gzipped(b, data))
	f.breakAt, f.breakErr = []int{5000}, layers.ErrGivenUp
	if err := b.fetchFails(b.addRemote(f, diffID), f); !errors.Is(err, layers.ErrGivenUp) {
		b.Errorf("got %v", err)
	}
	if n := f.opened.Load(); n != 1 {
		b.Errorf("opened %d times", n)
	}
}

func bomb(b *Bench) {
	b.Reopen(func(o *layers.Options) { o.MaxLayer = 1 << 20 })
	data, diffID := Tar(b, Text("zeros", strings.Repeat("\x00", 10<<20)))
	f := newServer(gzipped(b, data))
	if err := b.fetchFails(b.addRemote(f, diffID), f); !errors.Is(err, layers.ErrTooBig) {
		b.Errorf("got %v", err)
	}
}

func onceForAll(b *Bench) {
	data, diffID := someTar(b)
	f := newServer(gzipped(b, data))
	f.block = make(chan struct{})
	r := b.addRemote(f, diffID)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			var p lines
			if err := b.S.Fetch(b.Context(), b.Stack(r, r), f, &p); err != nil {
				b.Error(err)
			}
		})
	}
	<-f.blocked
	close(f.block)
	wg.Wait()
	if n := f.opened.Load(); n != 1 {
		b.Errorf("fetched %d times", n)
	}
}

func lastLeaves(b *Bench) {
	data, diffID := someTar(b)
	f := newServer(gzipped(b, data))
	f.block = make(chan struct{})
	r := b.addRemote(f, diffID)
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := b.S.Fetch(ctx, r, f, nil); !errors.Is(err, context.Canceled) {
				b.Errorf("got %v", err)
			}
		})
	}
	<-f.blocked
	cancel()
	wg.Wait()
	close(f.block)
	b.OK(b.S.Fetch(b.Context(), r, f, nil)) // joins nothing that is ending
	names(b, b.Snapshot(r), ".", "x", "big")
}

func anotherFetcher(b *Bench) {
	data, diffID := someTar(b)
	good := newServer(gzipped(b, data))
	good.block = make(chan struct{})
	bad := newServer(good.data)
	bad.refuse = errors.New("unauthorized")
	r := b.addRemote(good, diffID)
	first := make(chan error, 1)
	go func() { first <- b.S.Fetch(b.Context(), r, good, nil) }()
	<-good.blocked
	second := make(chan error, 1)
	go func() { second <- b.S.Fetch(b.Context(), r, bad, nil) }()
	close(good.block)
	b.OK(<-first)
	// It either joined, or came later and found the layer; never asked with its own.
	b.OK(<-second)
}

// leaverDoesNotHarm: the first who asked leaves, and the connection was theirs.
func leaverDoesNotHarm(b *Bench) {
	data, diffID := someTar(b)
	mine, yours := newServer(gzipped(b, data)), newServer(gzipped(b, data))
	mine.block = make(chan struct{})
	mine.breakAt = []int{3000}
	r := b.addRemote(mine, diffID)
	ctx, leave := context.WithCancel(b.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- b.S.Fetch(ctx, r, mine, nil) }()
	<-mine.blocked
	var p signalled
	p.started = make(chan struct{})
	go func() { second <- b.S.Fetch(b.Context(), r, yours, &p) }()
	<-p.started
	leave()
	if err := <-first; !errors.Is(err, context.Canceled) {
		b.Errorf("who left: %v", err)
	}
	close(mine.block)
	b.OK(<-second)
	names(b, b.Snapshot(r), ".", "x", "big")
}

func anotherPlace(b *Bench) {
	data, diffID := someTar(b)
	wrong, right := newServer([]byte("something else")), newServer(gzipped(b, data))
	b.addRemote(right, diffID)
	r := b.addRemote(wrong, diffID)
	both := fetcherFunc(func(ctx context.Context, blob layers.RemoteBlob) (io.ReadCloser, error) {
		if blob.Descriptor.Digest == right.desc.Digest {
			return right.Fetch(ctx, blob)
		}
		return wrong.Fetch(ctx, blob)
	})
	b.OK(b.S.Fetch(b.Context(), r, both, nil))
	names(b, b.Snapshot(r), ".", "x", "big")
}

type fetcherFunc func(context.Context, layers.RemoteBlob) (io.ReadCloser, error)

func (f fetcherFunc) Fetch(ctx context.Context, b layers.RemoteBlob) (io.ReadCloser, error) {
	return f(ctx, b)
}

func alreadyHere(b *Bench) {
	data, diffID := someTar(b)
	here, err := b.S.Import(b.Context(), bytes.NewReader(data), layers.ImportOptions{})
	b.OK(err)
	b.Owned(here)
	f := newServer(gzipped(b, data))
	r := b.addRemote(f, diffID)
	b.OK(b.S.Fetch(b.Context(), r, f, nil))
	if info := r.Layers()[0]; info.Kind != layers.Blob || info.Remote == nil || f.opened.Load() != 0 {
		b.Errorf("%+v, fetched %d times", info, f.opened.Load())
	}
}

func refused(b *Bench) {
	_, diffID := someTar(b)
	f := newServer(nil)
	f.refuse = errors.New("unauthorized")
	if err := b.fetchFails(b.addRemote(f, diffID), f); !errors.Is(err, f.refuse) || !strings.Contains(err.Error(), "example.com/image") {
		b.Errorf("got %v", err)
	}
}

// signalled tells when the first line of progress was written.
type signalled struct {
	lines
	once    sync.Once
	started chan struct{}
}
