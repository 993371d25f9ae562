package dockerhost

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/slipwaybuild/slipway/cmd/slipway/internal/certs"
)

// endpointName is the endpoint of a context that is Docker's API.
const endpointName = "docker"

// metadata is what docker writes to contexts/meta/ID/meta.json.
type metadata struct {
	Name      string
	Endpoints map[string]struct {
		Host          string
		SkipTLSVerify bool
	}
}

// readContext reads a context from docker's store of them: a directory each, named by the SHA-256 of the context's name.
func readContext(store, name string) (*Endpoint, error) {
	sum := sha256.Sum256([]byte(name))
	id := hex.EncodeToString(sum[:])
	b, err := os.ReadFile(filepath.Join(store, "meta", id, "meta.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("context not found")
	}
	if err != nil {
		return nil, err
	}
	var m metadata
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("read its metadata: %w", err)
	}
	found, ok := m.Endpoints[endpointName]
	if !ok || found.Host == "" {
		return nil, errors.New("it has no docker endpoint")
	}
	dir := filepath.Join(store, "tls", id, endpointName)
	_, err = os.Stat(dir)
	e, err := parse(found.Host, err == nil || found.SkipTLSVerify)
	if err != nil {
		return nil, err
	}
	e.Origin = "context " + name
	if e.secure {
		if e.tls, err = certs.Load(dir, found.SkipTLSVerify, protocol); err != nil {
			return nil, fmt.Errorf("its TLS files: %w", err)
		}
	}
	return e, nil
}
