// Package address knows where the daemon is to be found.
package address

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Env is the environment variable that names the daemon's address.
const Env = "SLIPWAY_HOST"

// Default is the address when nothing was said: that of the environment, else the system's daemon for root and the user's own
// for anybody else.
func Default() string {
	if a := os.Getenv(Env); a != "" {
		return a
	}
	if os.Geteuid() != 0 {
		if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
			return "unix://" + filepath.Join(dir, "slipway", "slipway.sock")
		}
	}
	return "unix:///run/slipway/slipway.sock"
}

// Path returns the socket path of an address.
func Path(addr string) (string, error) {
	path, ok := strings.CutPrefix(addr, "unix://")
	if !ok && strings.Contains(addr, "://") {
		return "", fmt.Errorf("daemon address %q: only unix:// addresses can be reached", addr)
	}
	if path == "" {
		return "", fmt.Errorf("daemon address %q names no socket", addr)
	}
	return filepath.Abs(path)
}
