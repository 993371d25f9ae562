package listen

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
)

// Certificates are those of the daemon's tcp addresses, read from files that may be replaced while it runs. It is safe for concurrent
// use.
type Certificates struct {
	cert, key, ca string
	now           atomic.Pointer[tls.Config]
}

// LoadCertificates reads the daemon's certificate and key, PEM files both. With a CA, clients must have a certificate of it.
func LoadCertificates(cert, key, ca string) (*Certificates, error) {
	c := &Certificates{cert: cert, key: key, ca: ca}
	return c, c.Reload()
}

// Reload reads the files again. New connections see what they say now; if they cannot be read, what they said before.
func (c *Certificates) Reload() error {
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return fmt.Errorf("load certificate of the daemon: %w", err)
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12,
		// Which of the two it is, is told by the first bytes all the same.
		NextProtos: []string{"h2", "http/1.1"},
	}
	if c.ca != "" {
		pem, err := os.ReadFile(c.ca)
		if err != nil {
			return fmt.Errorf("load CA of clients: %w", err)
		}
		config.ClientCAs = x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("load CA of clients: %s: %w", c.ca, errors.New("no certificate in it"))
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	c.now.Store(config)
	return nil
}

// Config is what listeners take. It follows Reload.
func (c *Certificates) Config() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.now.Load(), nil },
	}
}
