package dockerhost

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/docker/cli/cli/connhelper"
)

// Ports of Docker's API where an address names none.
const (
	portPlain  = "2375"
	portSecure = "2376"
)

// Endpoint is a Docker daemon that can be reached. It may be used concurrently.
type Endpoint struct {
	// Host is the address as it was given.
	Host string
	// Origin tells where the address came from, for messages.
	Origin string

	network, addr string                                                            // of a socket
	command       func(ctx context.Context, network, addr string) (net.Conn, error) // ssh, instead of a socket
	secure        bool                                                              // TCP with TLS
	tls           *tls.Config
}

// parse reads an address; secure says that TCP shall be with TLS.
func parse(host string, secure bool) (*Endpoint, error) {
	if host == "" {
		return nil, errors.New("the address is empty")
	}
	e := &Endpoint{Host: host}
	scheme, rest, ok := strings.Cut(host, "://")
	if !ok {
		scheme, rest = "tcp", host
	}
	switch scheme {
	case "unix":
		if rest == "" {
			return nil, fmt.Errorf("address %q names no socket", host)
		}
		e.network, e.addr = "unix", rest
	case "tcp":
		addr, err := hostPort(rest, secure)
		if err != nil {
			return nil, fmt.Errorf("address %q: %w", host, err)
		}
		e.network, e.addr, e.secure = "tcp", addr, secure
	case "ssh":
		helper, err := connhelper.GetConnectionHelper(host)
		if err != nil || helper == nil {
			return nil, fmt.Errorf("address %q: %w", host, orNone(err))
		}
		e.command = helper.Dialer
	default:
		return nil, fmt.Errorf("address %q: Docker's daemon is reached by unix://, tcp:// or ssh://", host)
	}
	return e, nil
}

func orNone(err error) error {
	if err == nil {
		return errors.New("not an address of ssh")
	}
	return err
}

func hostPort(rest string, secure bool) (string, error) {
	u, err := url.Parse("tcp://" + rest)
	if err != nil {
		return "", errors.New("not a host and port")
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", errors.New("only a host and a port can be given")
	}
	name, port := u.Hostname(), u.Port()
	if name == "" {
		name = "127.0.0.1"
	}
	switch {
	case port != "":
	case secure:
		port = portSecure
	default:
		port = portPlain
	}
	return net.JoinHostPort(name, port), nil
}

// Dial opens a connection on which the daemon speaks HTTP/1.1. The caller owns it.
func (e *Endpoint) Dial(ctx context.Context) (net.Conn, error) {
	conn, err := e.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to Docker's daemon at %s: %w", e.Host, err)
	}
	return conn, nil
}

func (e *Endpoint) dial(ctx context.Context) (net.Conn, error) {
	if e.command != nil {
		return e.command(ctx, "", "")
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, e.network, e.addr)
	if err != nil || !e.secure {
		return conn, err
	}
	config := e.tls.Clone()
	config.ServerName, _, _ = net.SplitHostPort(e.addr)
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secure, nil
}
