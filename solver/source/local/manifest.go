package local

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// manifest is what is remembered of a sync: the layer it gave, and for every entry how to tell that it is still the same.
type manifest struct {
	Layer   layers.ID
	Content digest.Digest
	Entries []known
}

// known is one entry of a manifest.
type known struct {
	Path string
	// Meta is a digest of all that the client said of the entry, but for its hint.
	Meta [16]byte
	// Hint is the client's change hint of a regular file; "" if it gave none, or for anything else.
	Hint string
	// Sum is the SHA-256 of a regular file's contents.
	Sum [sha256.Size]byte
}

// manifests keeps them, one file each.
type manifests struct{ dir string }

// keepManifests is how many are kept; those used last stay.
const keepManifests = 256

func openManifests(dir string) (*manifests, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	m := &manifests{dir}
	return m, m.trim()
}

// manifestFormat is raised when what a manifest holds changes its meaning.
const manifestFormat = 1

func (m *manifests) load(key string) (*manifest, error) {
	p := filepath.Join(m.dir, key)
	b, err := os.ReadFile(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	const head = 4 + sha256.Size
	if len(b) < head || binary.LittleEndian.Uint32(b) != manifestFormat || [sha256.Size]byte(b[4:head]) != sha256.Sum256(b[head:]) {
		return nil, errors.Join(errors.New("manifest is damaged or of another version"), os.Remove(p))
	}
	var out manifest
	if err := gob.NewDecoder(bytes.NewReader(b[head:])).Decode(&out); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	now := time.Now()
	return &out, os.Chtimes(p, now, now)
}

// store replaces the manifest of key. It is written aside and moved, so a reader sees the old or the new one.
func (m *manifests) store(key string, v *manifest) error {
	var body bytes.Buffer
	if err := gob.NewEncoder(&body).Encode(v); err != nil {
		return err
	}
	sum := sha256.Sum256(body.Bytes())
	head := binary.LittleEndian.AppendUint32(nil, manifestFormat)
	f, err := os.CreateTemp(m.dir, ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(slices.Concat(head, sum[:], body.Bytes()))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(m.dir, key))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return m.trim()
}

// trim removes the manifests used longest ago, and what a crash left half-written.
func (m *manifests) trim() error {
	entries, err := os.ReadDir(m.dir)
	if err != nil || len(entries) <= keepManifests {
		return err
	}
	type aged struct {
		name string
		at   time.Time
	}
	var all []aged
	for _, e := range entries {
		if fi, err := e.Info(); err == nil {
			all = append(all, aged{e.Name(), fi.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b aged) int { return b.at.Compare(a.at) })
	for _, e := range all[min(len(all), keepManifests):] {
		if err := os.Remove(filepath.Join(m.dir, e.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
