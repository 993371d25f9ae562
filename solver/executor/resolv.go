package executor

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
)

// DNS overrides what a step's /etc/resolv.conf would take from the host. An empty list overrides nothing.
type DNS struct {
	Nameservers   []string
	Options       []string
	SearchDomains []string
}

// Where the host says how it resolves names. systemd-resolved puts its own loopback address into the first and keeps the real
// servers in the second.
const (
	hostResolvConf    = "/etc/resolv.conf"
	systemdResolvConf = "/run/systemd/resolve/resolv.conf"
	systemdStub       = "127.0.0.53"
)

// publicNameservers are used, as by Docker, where the host has none that a step could reach.
func publicNameservers() []string {
	return []string{"8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"}
}

// resolvConf is what a resolv.conf says.
type resolvConf struct {
	nameservers, search, options []string
	other                        []string // lines we have no opinion about
}

// resolvConfFile is /etc/resolv.conf of a step. read reads a file of the host; shared says that the step shares its network,
// and with it whatever listens on its loopback.
func resolvConfFile(read func(string) ([]byte, error), dns DNS, shared bool) ([]byte, error) {
	text, err := readOptional(read, hostResolvConf)
	if err != nil {
		return nil, err
	}
	conf := parseResolvConf(text)
	if !shared && len(conf.nameservers) == 1 && conf.nameservers[0] == systemdStub {
		if text, err = readOptional(read, systemdResolvConf); err != nil {
			return nil, err
		}
		conf = parseResolvConf(text)
	}
	if !shared {
		conf.dropLoopback()
	}
	if err := conf.override(dns); err != nil {
		return nil, err
	}
	if len(conf.nameservers) == 0 {
		conf.nameservers = publicNameservers()
	}
	return conf.format(), nil
}

func readOptional(read func(string) ([]byte, error), name string) ([]byte, error) {
	b, err := read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

func parseResolvConf(text []byte) resolvConf {
	var c resolvConf
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		fields := strings.Fields(line)
		switch fields[0] {
		case "nameserver":
			if len(fields) > 1 {
				c.nameservers = append(c.nameservers, fields[1])
			}
		case "search", "domain": // the last one counts
			c.search = fields[1:]
		case "options":
			c.options = append(c.options, fields[1:]...)
		default:
			c.other = append(c.other, line)
		}
	}
	return c
}

// dropLoopback removes name servers that are reached over the host's loopback only, or through one of its interfaces.
func (c *resolvConf) dropLoopback() {
	var keep []string
	for _, ns := range c.nameservers {
		ip, err := netip.ParseAddr(ns)
		if err != nil || ip.IsLoopback() || ip.Zone() != "" {
			continue
		}
		keep = append(keep, ns)
	}
	c.nameservers = keep
}

func (c *resolvConf) override(dns DNS) error {
	for _, ns := range dns.Nameservers {
		if _, err := netip.ParseAddr(ns); err != nil {
			return fmt.Errorf("configured name server: %w", err)
		}
	}
	if len(dns.Nameservers) > 0 {
		c.nameservers = dns.Nameservers
	}
	if len(dns.SearchDomains) > 0 {
		c.search = dns.SearchDomains
	}
	if len(dns.Options) > 0 {
		c.options = dns.Options
	}
	return nil
}

func (c *resolvConf) format() []byte {
	var b strings.Builder
	for _, ns := range c.nameservers {
		b.WriteString("nameserver " + ns + "\n")
	}
	if len(c.search) > 0 && (len(c.search) > 1 || c.search[0] != ".") {
		b.WriteString("search " + strings.Join(c.search, " ") + "\n")
	}
	if len(c.options) > 0 {
		b.WriteString("options " + strings.Join(c.options, " ") + "\n")
	}
	for _, line := range c.other {
		b.WriteString(line + "\n")
	}
	return []byte(b.String())
}
