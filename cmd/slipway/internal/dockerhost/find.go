package dockerhost

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/slipwaybuild/slipway/cmd/slipway/internal/certs"
)

// Environment variables, as docker's.
const (
	EnvHost      = "DOCKER_HOST"
	EnvContext   = "DOCKER_CONTEXT"
	envConfig    = "DOCKER_CONFIG"
	envCertPath  = "DOCKER_CERT_PATH"
	envTLS       = "DOCKER_TLS"
	envTLSVerify = "DOCKER_TLS_VERIFY"
)

// local is where Docker's daemon of this host is found.
const local = "unix:///var/run/docker.sock"

// defaultContext is the name of the context that is no file: the environment's host, or the local daemon.
const defaultContext = "default"

// ByHost returns the daemon at host, with TLS as the environment says.
func ByHost(host string) (*Endpoint, error) { return fromEnvironment(host, "--host") }

// ByContext returns the daemon of one of docker's contexts.
func ByContext(name string) (*Endpoint, error) {
	if name == defaultContext {
		host := os.Getenv(EnvHost)
		if host == "" {
			host = local
		}
		return fromEnvironment(host, "context "+name)
	}
	dir, err := configDir()
	if err != nil {
		return nil, err
	}
	e, err := readContext(filepath.Join(dir, "contexts"), name)
	if err != nil {
		return nil, fmt.Errorf("docker context %q: %w", name, err)
	}
	return e, nil
}

// FromEnvironment returns the daemon that DOCKER_HOST or else DOCKER_CONTEXT names, nil if neither is set.
func FromEnvironment() (*Endpoint, error) {
	if host := os.Getenv(EnvHost); host != "" {
		return fromEnvironment(host, EnvHost)
	}
	if name := os.Getenv(EnvContext); name != "" {
		return ByContext(name)
	}
	return nil, nil
}

func fromEnvironment(host, origin string) (*Endpoint, error) {
	e, err := parse(host, os.Getenv(envTLS) != "" || os.Getenv(envTLSVerify) != "")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", origin, err)
	}
	e.Origin = origin
	if !e.secure {
		return e, nil
	}
	dir := os.Getenv(envCertPath)
	if dir == "" {
		if dir, err = configDir(); err != nil {
			return nil, err
		}
	}
	if e.tls, err = certs.Load(dir, os.Getenv(envTLSVerify) == "", protocol); err != nil {
		return nil, fmt.Errorf("TLS for %s: %w", host, err)
	}
	return e, nil
}

// configDir is the directory of docker's configuration.
func configDir() (string, error) {
	if dir := os.Getenv(envConfig); dir != "" {
		return dir, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find docker's configuration: %w", err)
	}
	return filepath.Join(home, ".docker"), nil
}
