package request

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// sharedKey names a directory of this user on this host, the same every time and not to be guessed by others: under it the
// daemon remembers which files it has. Empty where nothing can be kept, which costs a full transfer each time.
func sharedKey(dir string) string {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return ""
	}
	node, err := nodeID()
	if err != nil {
		return ""
	}
	sum := sha256.Sum256([]byte(node + ":" + abs))
	return hex.EncodeToString(sum[:])
}

// nodeID is a secret of this user on this host.
func nodeID() (string, error) {
	config, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(config, "slipway", "node-id")
	b, err := os.ReadFile(path)
	if id := strings.TrimSpace(string(b)); err == nil && id != "" {
		return id, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	return createID(path)
}

// createID writes a new id unless another process was faster, and returns the one that counts.
func createID(path string) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".node-id-*")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name())
	if _, err := f.WriteString(rand.Text()); err != nil {
		return "", errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return "", err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	b, err := os.ReadFile(path)
	return strings.TrimSpace(string(b)), err
}
