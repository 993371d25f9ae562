package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
)

// Open listens at an address:
//
//   - "unix:///path": see [Unix];
//   - "tcp://host:port": with TLS if o.TLS is set;
//   - "fd://": all sockets that the service manager passed (systemd's socket activation), "fd://3" the one with that number; those
//     of tcp with TLS if o.TLS is set.
//
// Closing a passed socket leaves its name to whoever made it.
func Open(ctx context.Context, addr string, o Options) ([]net.Listener, error) {
	scheme, rest, ok := strings.Cut(addr, "://")
	if !ok {
		return nil, fmt.Errorf("listen on %q: no protocol, did you mean unix://%s?", addr, addr)
	}
	switch scheme {
	case "unix":
		l, err := Unix(addr, o)
		if err != nil {
			return nil, err
		}
		return []net.Listener{l}, nil
	case "tcp":
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", rest)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", addr, err)
		}
		return []net.Listener{o.secured(l)}, nil
	case "fd":
		list, err := passed(rest, activation.Files(false))
		for i, l := range list {
			list[i] = o.secured(l)
		}
		return list, err
	case "npipe":
		return nil, fmt.Errorf("listen on %q: named pipes are of Windows", addr)
	}
	return nil, fmt.Errorf("listen on %q: only unix://, tcp:// and fd:// addresses are served", addr)
}

func (o Options) secured(l net.Listener) net.Listener {
	if _, tcp := l.Addr().(*net.TCPAddr); tcp && o.TLS != nil {
		return tls.NewListener(l, o.TLS)
	}
	return l
}

// passed are the sockets that were passed, or the one with a number.
func passed(number string, files []*os.File) (list []net.Listener, err error) {
	var wanted uintptr
	if number != "" && number != "*" {
		n, err := strconv.ParseUint(number, 10, 31)
		if err != nil {
			return nil, fmt.Errorf("listen on fd://%s: no number of a file", number)
		}
		wanted = uintptr(n)
	}
	for _, f := range files {
		if wanted != 0 && f.Fd() != wanted {
			continue
		}
		l, err := net.FileListener(f) // a duplicate: the file is closed for good with its last owner
		if err != nil {
			for _, l := range list {
				err = errors.Join(err, l.Close())
			}
			return nil, fmt.Errorf("listen on fd://%d: %w", f.Fd(), err)
		}
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
		list = append(list, l)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("listen on fd://%s: no such socket was passed: is the daemon started by systemd, with a socket unit?", number)
	}
	return list, nil
}
