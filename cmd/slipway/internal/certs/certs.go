// Package certs reads certificates as docker keeps them: a directory with ca.pem, cert.pem and key.pem.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Load reads a directory. Without an authority those of the system count; without both of the others the client shows no certificate. With skip set
// the daemon's certificate is not checked. The connection will speak protocol.
func Load(dir string, skip bool, protocol string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{protocol}, InsecureSkipVerify: skip}
	ca, err := optional(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return nil, err
	}
	if ca != nil && !skip {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("%s holds no certificate", filepath.Join(dir, "ca.pem"))
		}
	}
	cert, err := optional(filepath.Join(dir, "cert.pem"))
	if err != nil {
		return nil, err
	}
	key, err := optional(filepath.Join(dir, "key.pem"))
	if err != nil || cert == nil && key == nil {
		return c, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("cert.pem and key.pem of %s: %w", dir, err)
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}

// optional reads a file; nil if there is none.
func optional(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}
