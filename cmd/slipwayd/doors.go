package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"

	"github.com/slipwaybuild/slipway/daemon/config"
	"github.com/slipwaybuild/slipway/daemon/listen"
)

// doors are the sockets the daemon listens on.
type doors struct {
	listeners []net.Listener
	certs     *listen.Certificates // nil without TLS
}

// openDoors opens all addresses, or none.
func openDoors(ctx context.Context, c config.GRPC, log *slog.Logger) (*doors, error) {
	d := &doors{}
	o := listen.Options{UID: c.UID, GID: c.GID}
	if c.TLS.Cert != "" {
		var err error
		if d.certs, err = listen.LoadCertificates(c.TLS.Cert, c.TLS.Key, c.TLS.CA); err != nil {
			return nil, err
		}
		o.TLS = d.certs.Config()
	}
	for _, addr := range c.Address {
		list, err := listen.Open(ctx, addr, o)
		if err != nil {
			return nil, errors.Join(err, d.close())
		}
		d.listeners = append(d.listeners, list...)
		if strings.HasPrefix(addr, "tcp://") && c.TLS.CA == "" {
			log.Warn("whoever reaches this address is root here: have clients show certificates (grpc.tls with a ca)", "address", addr)
		}
	}
	return d, nil
}

func (d *doors) close() error {
	var errs []error
	for _, l := range d.listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}
