package layerstest

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/layers"
	"golang.org/x/sys/unix"
)

var restartCases = map[string]func(*Bench){
	"all is found again":      foundAgain,
	"a second process":        secondProcess,
	"leftovers are cleaned":   leftoversCleaned,
	"vanished bytes":          vanishedBytes,
	"vanished at run time":    vanishedAtRunTime,
	"vanished but fetchable":  vanishedFetchable,
	"closed":                  closedStore,
	"names nobody knows":      strangeNames,
	"packed directory's gone": packedDirGone,
}

func foundAgain(b *Bench) {
	base := b.Import(Dir("tmp", 0o1777), Text("x", "1"))
	odd := b.Import(Text("tmp/x", "1"))
	step := b.Step(base, func(root string) { b.Write(filepath.Join(root, "y"), "y"); b.OK(os.Remove(filepath.Join(root, "x"))) })
	packed := b.Step(base, func(root string) { b.Write(filepath.Join(root, "z"), "z") })
	empty := b.Step(base, func(string) {})
	ids, err := b.S.Solidify(b.Context(), packed)
	b.OK(err)
	remote, err := b.S.AddRemote(b.Context(), layers.RemoteBlob{Ref: "host/r", DiffID: digest.FromString("d"),
		Descriptor: ocispecs.Descriptor{Digest: digest.FromString("z"), Size: 1}})
	b.OK(err)
	all := b.Stack(base, odd, step, packed, empty)
	want := b.Snapshot(all)
	with := b.Stack(all, b.Owned(remote))
	b.OK(b.S.Hold(b.Context(), "image", with))
	stack := with.IDs()

	b.Reopen(nil)
	r, err := b.S.Pin(b.Context(), stack...)
	b.OK(err)
	b.Owned(r)
	Same(b, b.Snapshot(b.Owned(b.S.Slice(r, 0, 5))), want)
	infos := r.Layers()
	if infos[3].DiffID != ids[0] || infos[5].Kind != layers.Remote || infos[5].Remote.Ref != "host/r" {
		b.Errorf("got %+v", infos)
	}
	held, err := b.S.Held(b.Context(), "image")
	b.OK(err)
	b.Owned(held)
	if len(held.IDs()) != 6 {
		b.Errorf("held %v", held.IDs())
	}
}

func secondProcess(b *Bench) {
	s, err := b.open(b.Context(), b.Root, nil)
	if !errors.Is(err, layers.ErrInUse) {
		b.Errorf("got %v", err)
	}
	if s != nil {
		b.OK(s.Close())
	}
}

func leftoversCleaned(b *Bench) {
	kept := b.Import(Text("x", "1"))
	id := kept.IDs()[0]
	b.releaseOwned()
	b.OK(b.S.Close())
	b.S = nil
	leave := func(path, data string) {
		path = filepath.Join(b.Root, path)
		b.OK(os.MkdirAll(filepath.Dir(path), 0o755))
		b.Write(path, data)
	}
	leave("tmp/half", "half a blob")
	leave("tmp/tree/file", "half a tree")
	leave("uppers/u/fs/file", "x")
	leave("mounts/m/root/x", "x")
	leave("chains/c/d", "x")
	leave("trash/t/u/v/w/x", "x")
	leave("dirs/unknown/file", "x")
	leave("unpacked/unknown/file", "x")
	leave("volumes/unknown/fs/file", "x")
	leave("blobs/sha256/00/0000.erofs", "x")
	leave("blobs/sha256/stray", "x")
	target := filepath.Join(b.Root, "mounts/m/root")
	b.OK(unix.Mount("tmpfs", target, "tmpfs", 0, ""))
	b.OK(os.Mkdir(filepath.Join(target, "inner"), 0o755))
	b.OK(unix.Mount("tmpfs", filepath.Join(target, "inner"), "tmpfs", 0, ""))
	b.Reopen(nil)
	b.OK(b.S.Prune(b.Context(), layers.PruneOptions{Filter: func(layers.Usage) bool { return false }}, nil)) // waits for deletions
	for _, dir := range []string{"tmp", "uppers", "mounts", "chains", "trash", "dirs", "volumes", "unpacked"} {
		left, err := os.ReadDir(filepath.Join(b.Root, dir))
		b.OK(err)
		if len(left) > 0 {
			b.Errorf("%s: %v", dir, left)
		}
	}
	if n := countFiles(b, "blobs"); n != 1 {
		b.Errorf("%d blobs", n)
	}
	r, err := b.S.Pin(b.Context(), id)
	b.OK(err)
	names(b, b.Snapshot(b.Owned(r)), ".", "x")
}

func removeBlobs(b *Bench) {
	b.Helper()
	b.OK(filepath.WalkDir(filepath.Join(b.Root, "blobs"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			err = os.Remove(path)
		}
		return err
	}))
}

func vanishedBytes(b *Bench) {
	base := b.Import(Text("x", "1"))
	step := b.Step(base, func(root string) { b.Write(filepath.Join(root, "y"), "y") })
	blobID, dirID := base.IDs()[0], step.IDs()[0]
	b.releaseOwned()
	b.OK(b.S.Close())
	b.S = nil
	removeBlobs(b)
	b.OK(os.RemoveAll(filepath.Join(b.Root, "dirs")))
	b.Reopen(nil)
	for _, id := range []layers.ID{blobID, dirID} {
		if _, err := b.S.Pin(b.Context(), id); !errors.Is(err, layers.ErrNotFound) {
			b.Errorf("%s: %v", id, err)
		}
	}
	b.compareDU()
}

func vanishedAtRunTime(b *Bench) {
	data, diffID := Tar(b, Text("x", "1"))
	r := b.Import(Text("x", "1"))
	removeBlobs(b)
	if _, err := b.S.Compose(b.Context(), r, nil); !errors.Is(err, layers.ErrNotFound) {
		b.Errorf("compose: %v", err)
	}
	if _, err := b.S.Pin(b.Context(), layers.ID(diffID)); !errors.Is(err, layers.ErrNotFound) {
		b.Errorf("pin: %v", err)
	}
	again, err := b.S.Import(b.Context(), bytes.NewReader(data), layers.ImportOptions{Want: diffID})
	b.OK(err)
	names(b, b.Snapshot(b.Owned(again)), ".", "x")
}

func vanishedFetchable(b *Bench) {
	data, diffID := Tar(b, Text("x", "1"))
	f := newServer(data)
	r, err := b.S.AddRemote(b.Context(), f.remote(diffID))
	b.OK(err)
	b.Owned(r)
	b.OK(b.S.Fetch(b.Context(), r, f, nil))
	removeBlobs(b)
	again, err := b.S.Pin(b.Context(), layers.ID(diffID))
	b.OK(err)
	b.Owned(again)
	if k := again.Layers()[0].Kind; k != layers.Remote {
		b.Errorf("kind %s", k)
	}
	b.OK(b.S.Fetch(b.Context(), again, f, nil))
	names(b, b.Snapshot(again), ".", "x")
}

func closedStore(b *Bench) {
	b.OK(b.S.Close())
	s := b.S
	b.S = nil
	defer b.Reopen(nil)
	data, _ := Tar(b, Text("x", "1"))
	_, err := s.Import(b.Context(), bytes.NewReader(data), layers.ImportOptions{})
	_, err2 := s.NewUpper(b.Context())
	_, err3 := s.Pin(b.Context(), "x")
	_, err4 := s.Volume(b.Context(), layers.VolumeOptions{Key: "k"})
	_, err5 := s.Usage(b.Context())
	for i, err := range []error{err, err2, err3, err4, err5, s.Close()} {
		if !errors.Is(err, layers.ErrClosed) {
			b.Errorf("%d: %v", i, err)
		}
	}
}

func strangeNames(b *Bench) {
	for _, id := range []layers.ID{"", "../../etc", "dir:../x", "sha256:zz", "dir:"} {
		if _, err := b.S.Pin(b.Context(), id); !errors.Is(err, layers.ErrNotFound) {
			b.Errorf("%q: %v", id, err)
		}
	}
	data, _ := Tar(b, Text("x", "1"))
	if _, err := b.S.Import(b.Context(), bytes.NewReader(data), layers.ImportOptions{Want: "sha256:../../x"}); err == nil {
		b.Error("a digest that is none was taken")
	}
	if _, err := b.S.AddRemote(b.Context(), layers.RemoteBlob{DiffID: "x"}); err == nil {
		b.Error("a remote layer without digests was taken")
	}
}

func packedDirGone(b *Bench) {
	step := b.Step(b.Import(Text("x", "1")), func(root string) { b.Write(filepath.Join(root, "y"), "y") })
	id := step.IDs()[0]
	want := b.Snapshot(step)
	_, err := b.S.Solidify(b.Context(), step)
	b.OK(err)
	b.Reopen(nil)
	b.Reopen(nil)
	r, err := b.S.Pin(b.Context(), id)
	b.OK(err)
	Same(b, b.Snapshot(b.Owned(r)), want)
	left, err := os.ReadDir(filepath.Join(b.Root, "dirs"))
	b.OK(err)
	if erofs := b.S.Realisation() == layers.Erofs; erofs != (len(left) == 0) {
		b.Errorf("%s keeps %v", b.S.Realisation(), left)
	}
}
