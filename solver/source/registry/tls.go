package registry

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// tlsConfig reads the certificates that c names.
func tlsConfig(c HostConfig) (*tls.Config, error) {
	cas, pairs := c.CA, c.KeyPairs
	for _, dir := range c.TLSConfigDirs {
		dirCAs, dirPairs, err := scanTLSDir(dir)
		if err != nil {
			return nil, err
		}
		cas, pairs = append(cas[:len(cas):len(cas)], dirCAs...), append(pairs[:len(pairs):len(pairs)], dirPairs...)
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(cas) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		for _, file := range cas {
			pem, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("read CA: %w", err)
			}
			if !pool.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("read CA: no certificate in %s", file)
			}
		}
		t.RootCAs = pool
	}
	for _, p := range pairs {
		cert, err := tls.LoadX509KeyPair(p.Cert, p.Key)
		if err != nil {
			return nil, fmt.Errorf("read client certificate %s: %w", p.Cert, err)
		}
		t.Certificates = append(t.Certificates, cert)
	}
	return t, nil
}

func scanTLSDir(dir string) (cas []string, pairs []KeyPair, err error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("read certificates: %w", err)
	}
	for _, f := range files {
		p := filepath.Join(dir, f.Name())
		switch filepath.Ext(p) {
		case ".crt":
			cas = append(cas, p)
		case ".cert":
			pairs = append(pairs, KeyPair{Cert: p, Key: strings.TrimSuffix(p, ".cert") + ".key"})
		}
	}
	return cas, pairs, nil
}
