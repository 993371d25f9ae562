package auth

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/gofrs/flock"
)

const (
	seedFile     = ".token_seed"
	seedLockFile = ".token_seed.lock"
)

// seeds keeps one random seed per host in a file that is shared with docker's own clients, so that all clients of a user are one
// authority. Where the file cannot be written the seeds live as long as the process.
type seeds struct {
	dir string
	mu  sync.Mutex
	m   map[string]seed // guarded by mu
}

// seed has the layout of the file.
type seed struct{ Seed []byte }

func (s *seeds) get(host string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = map[string]seed{}
	}
	if v, ok := s.m[host]; ok {
		return v.Seed, nil
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil && !unwritable(err) {
		return nil, err
	}
	lock := flock.New(filepath.Join(s.dir, seedLockFile))
	if err := lock.Lock(); err == nil {
		defer func() { _ = lock.Unlock() }() // ends with the process at the latest
	} else if !unwritable(err) {
		return nil, fmt.Errorf("lock %s: %w", lock.Path(), err)
	}
	if err := s.read(); err != nil {
		return nil, err
	}
	if v, ok := s.m[host]; ok && len(v.Seed) > 0 {
		return v.Seed, nil
	}
	fresh := make([]byte, 16)
	_, _ = rand.Read(fresh) // never fails: crypto/rand ends the program rather
	s.m[host] = seed{fresh}
	return fresh, s.write()
}

// read adds the file's seeds. A file that does not parse was half-written by a crash, and is begun anew.
func (s *seeds) read() error {
	data, err := os.ReadFile(filepath.Join(s.dir, seedFile))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), unwritable(err):
		return nil
	case err != nil:
		return err
	}
	var m map[string]seed
	if json.Unmarshal(data, &m) == nil {
		for host, v := range m {
			s.m[host] = v
		}
	}
	return nil
}

// write puts the file in place in one step; other clients read it without looking at the lock.
func (s *seeds) write() error {
	data, err := json.MarshalIndent(s.m, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(s.dir, seedFile+"-*") // mode 0600
	if err != nil {
		if unwritable(err) {
			return nil
		}
		return err
	}
	_, err = f.Write(data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(s.dir, seedFile))
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the first error counts
	}
	return err
}

// unwritable recognises a home directory that one may not write to, which is no reason to fail.
func unwritable(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, fs.ErrNotExist)
}

// deriveKey makes the authority's key of the daemon's salt and the client's seed.
func deriveKey(salt, seed []byte) ed25519.PrivateKey {
	mac := hmac.New(sha256.New, salt)
	mac.Write(seed)
	return ed25519.NewKeyFromSeed(mac.Sum(nil))
}
