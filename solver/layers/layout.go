package layers

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	digest "github.com/opencontainers/go-digest"
)

// layout knows where things are below the root. Everything is one rename away from everything else.
type layout string

func (l layout) lock() string    { return filepath.Join(string(l), "lock") }
func (l layout) index() string   { return filepath.Join(string(l), "index.db") }
func (l layout) blobs() string   { return filepath.Join(string(l), "blobs") }
func (l layout) dirs() string    { return filepath.Join(string(l), "dirs") }
func (l layout) volumes() string { return filepath.Join(string(l), "volumes") }

// unpacked holds the directories that stand for blobs on hosts that cannot mount them.
func (l layout) unpacked() string { return filepath.Join(string(l), "unpacked") }

// What is below these is worth nothing after a restart.

func (l layout) tmp() string    { return filepath.Join(string(l), "tmp") }
func (l layout) uppers() string { return filepath.Join(string(l), "uppers") }
func (l layout) mounts() string { return filepath.Join(string(l), "mounts") }
func (l layout) chains() string { return filepath.Join(string(l), "chains") }
func (l layout) trash() string  { return filepath.Join(string(l), "trash") }

func (l layout) all() []string {
	return append([]string{l.blobs(), l.dirs(), l.volumes(), l.unpacked()}, l.volatile()...)
}

func (l layout) volatile() []string {
	return []string{l.tmp(), l.uppers(), l.mounts(), l.chains(), l.trash()}
}

const blobSuffix = ".erofs"

func (l layout) blob(d digest.Digest) string {
	hex := d.Encoded()
	return filepath.Join(l.blobs(), d.Algorithm().String(), hex[:2], hex+blobSuffix)
}

func (l layout) unpackedCopy(d digest.Digest) string {
	return filepath.Join(l.unpacked(), d.Encoded())
}

const dirPrefix = "dir:"

func (l layout) dir(id ID) string {
	return filepath.Join(l.dirs(), strings.TrimPrefix(string(id), dirPrefix))
}

func (l layout) volume(id string) string   { return filepath.Join(l.volumes(), id) }
func (l layout) volumeFS(id string) string { return filepath.Join(l.volumes(), id, "fs") }

func (l layout) make() error {
	// Steps of other users walk through here to their root file systems; they cannot list it.
	for _, d := range append([]string{string(l)}, l.all()...) {
		if err := os.MkdirAll(d, 0o711); err != nil {
			return fmt.Errorf("make layer store: %w", err)
		}
	}
	return nil
}

// newName returns a name that was never used before.
func newName() string { return strings.ToLower(rand.Text()) }
