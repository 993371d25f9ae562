// Package address knows where the daemon is to be found.
package address

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/slipwaybuild/slipway/cmd/slipway/internal/certs"
)

// Env is the environment variable that names the daemon's address.
const Env = "SLIPWAY_HOST"

// Help says what addresses look like.
const Help = "unix:///path or tcp://host:port[?certs=DIR[&servername=NAME]]"

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

// Address is where a daemon listens.
type Address struct {
	// Network is "unix" or "tcp", Target a path or host:port.
	Network, Target string
	// TLS secures tcp; nil is plain.
	TLS *tls.Config
}

// Parse reads an address, and the certificates that it names: certs is a directory as docker's, with ca.pem, cert.pem and key.pem; servername is the
// name in the daemon's certificate if that is not the host.
func Parse(addr string) (Address, error) {
	if rest, ok := strings.CutPrefix(addr, "tcp://"); ok {
		return parseTCP(addr, rest)
	}
	path, ok := strings.CutPrefix(addr, "unix://")
	if !ok && strings.Contains(addr, "://") {
		return Address{}, fmt.Errorf("daemon address %q: only unix:// and tcp:// addresses can be reached", addr)
	}
	if path == "" {
		return Address{}, fmt.Errorf("daemon address %q names no socket", addr)
	}
	path, err := filepath.Abs(path)
	return Address{Network: "unix", Target: path}, err
}

func parseTCP(addr, rest string) (Address, error) {
	target, query, _ := strings.Cut(rest, "?")
	a := Address{Network: "tcp", Target: strings.TrimSuffix(target, "/")}
	host, port, err := net.SplitHostPort(a.Target)
	if err != nil || port == "" {
		return Address{}, fmt.Errorf("daemon address %q: not of the form tcp://host:port", addr)
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return Address{}, fmt.Errorf("daemon address %q: %w", addr, err)
	}
	for key := range values {
		if key != "certs" && key != "servername" {
			return Address{}, fmt.Errorf("daemon address %q: %q is neither certs nor servername", addr, key)
		}
	}
	dir, name := values.Get("certs"), values.Get("servername")
	if dir == "" {
		if name != "" {
			return Address{}, fmt.Errorf("daemon address %q: a servername without certs", addr)
		}
		return a, nil
	}
	if a.TLS, err = certs.Load(dir, false, "h2"); err != nil {
		return Address{}, fmt.Errorf("daemon address %q: %w", addr, err)
	}
	if a.TLS.ServerName = name; name == "" {
		a.TLS.ServerName = host
	}
	return a, nil
}
