package executor

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
)

// files is a host of a few files.
type files map[string]string

func (f files) read(name string) ([]byte, error) {
	if text, ok := f[name]; ok {
		return []byte(text), nil
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func TestResolvConf(t *testing.T) {
	t.Parallel()
	public := "nameserver " + strings.Join(publicNameservers(), "\nnameserver ") + "\n"
	for _, c := range []struct {
		name   string
		host   files
		dns    DNS
		shared bool
		want   string
	}{
		{"as the host has it", files{hostResolvConf: "# by hand\nnameserver 10.0.0.1\nsearch a.test b.test\noptions ndots:2\nsortlist 10.0.0.0\n"}, DNS{}, false,
			"nameserver 10.0.0.1\nsearch a.test b.test\noptions ndots:2\nsortlist 10.0.0.0\n"},
		{"loopback is out of reach", files{hostResolvConf: "nameserver 127.0.0.1\nnameserver 10.0.0.1\nnameserver ::1\nnameserver fe80::1%eth0\n"}, DNS{}, false, "nameserver 10.0.0.1\n"},
		{"loopback in a shared network", files{hostResolvConf: "nameserver 127.0.0.1\n"}, DNS{}, true, "nameserver 127.0.0.1\n"},
		{"nothing but loopback", files{hostResolvConf: "nameserver 127.0.0.1\nsearch a.test\n"}, DNS{}, false, public + "search a.test\n"},
		{"nothing at all", files{}, DNS{}, true, public},
		{"systemd-resolved", files{hostResolvConf: "nameserver 127.0.0.53\n", systemdResolvConf: "nameserver 10.0.0.2\n"}, DNS{}, false, "nameserver 10.0.0.2\n"},
		{"systemd-resolved in a shared network", files{hostResolvConf: "nameserver 127.0.0.53\n", systemdResolvConf: "nameserver 10.0.0.2\n"}, DNS{}, true, "nameserver 127.0.0.53\n"},
		{"configured", files{hostResolvConf: "nameserver 10.0.0.1\nsearch a.test\noptions ndots:2\n"}, DNS{Nameservers: []string{"1.1.1.1"}, SearchDomains: []string{"c.test"}, Options: []string{"rotate"}}, false,
			"nameserver 1.1.1.1\nsearch c.test\noptions rotate\n"},
		{"configured loopback is meant", files{}, DNS{Nameservers: []string{"127.0.0.1"}}, false, "nameserver 127.0.0.1\n"},
		{"an empty search list", files{hostResolvConf: "nameserver 10.0.0.1\nsearch .\n"}, DNS{}, false, "nameserver 10.0.0.1\n"},
		{"the last search list counts", files{hostResolvConf: "nameserver 10.0.0.1\ndomain a.test\nsearch b.test\n"}, DNS{}, false, "nameserver 10.0.0.1\nsearch b.test\n"},
		{"broken lines", files{hostResolvConf: "nameserver\n\n  nameserver   10.0.0.1  \n;x\n"}, DNS{}, false, "nameserver 10.0.0.1\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := resolvConfFile(c.host.read, c.dns, c.shared)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	t.Run("a bad configured server", func(t *testing.T) {
		t.Parallel()
		if _, err := resolvConfFile(files{}.read, DNS{Nameservers: []string{"dns.test"}}, false); err == nil {
			t.Error("a name is taken for an address")
		}
	})
	t.Run("an unreadable file", func(t *testing.T) {
		t.Parallel()
		no := errors.New("no")
		if _, err := resolvConfFile(func(string) ([]byte, error) { return nil, no }, DNS{}, false); !errors.Is(err, no) {
			t.Errorf("error %v", err)
		}
	})
}
