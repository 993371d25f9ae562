package daemon

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/executor/devices"
)

// Product names the engine to frontends and clients.
const Product = "slipway"

// Worker is what steps run on.
type Worker struct {
	ID        string
	Labels    map[string]string
	Platforms []ocispecs.Platform
	// Devices are those of the host that steps may ask for.
	Devices devices.Devices
	// GCPolicy holds the rules of collecting, in their order.
	GCPolicy []GCRule
}

// Worker describes the one worker there is, as it is now. The first platform is the default.
func (e *Engine) Worker() Worker {
	w := e.worker
	w.Platforms = e.host.List()
	if e.devices != nil {
		w.Devices = e.devices.List()
	}
	return w
}

// newWorker describes this host, but for what it runs. The id stays the same over restarts.
func newWorker(root string, extra map[string]string, realisation, network string) (Worker, error) {
	id, err := workerID(filepath.Join(root, "worker-id"))
	if err != nil {
		return Worker{}, err
	}
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "unknown"
	}
	w := Worker{
		ID: id,
		Labels: map[string]string{
			"org.mobyproject.buildkit.worker.executor": "oci",
			"org.mobyproject.buildkit.worker.hostname": hostname,
			"org.mobyproject.buildkit.worker.network":  network,
			"org.slipwaybuild.layers":                  realisation,
		},
	}
	maps.Copy(w.Labels, extra)
	return w, nil
}

func workerID(path string) (string, error) {
	b, err := os.ReadFile(path)
	if id := strings.TrimSpace(string(b)); err == nil && id != "" {
		return id, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read worker id: %w", err)
	}
	id := strings.ToLower(rand.Text())
	if err := os.WriteFile(path, []byte(id), 0o600); err != nil {
		return "", fmt.Errorf("write worker id: %w", err)
	}
	return id, nil
}
