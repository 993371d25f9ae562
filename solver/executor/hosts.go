package executor

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
)

// DefaultHostname is the name of a step's host unless its spec says otherwise. It is the one people know from BuildKit; a name
// of this host's would be in results and make them differ from host to host.
const DefaultHostname = "buildkitsandbox"

// hostsFile is /etc/hosts of a step.
func hostsFile(hostname string, extra []HostIP) ([]byte, error) {
	names := "localhost"
	if hostname != "" && hostname != "localhost" {
		names += " " + hostname
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "127.0.0.1\t%s\n", names)
	b.WriteString("::1\tlocalhost ip6-localhost ip6-loopback\n")
	b.WriteString("fe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n")
	for _, h := range extra {
		ip, err := netip.ParseAddr(strings.Trim(h.IP, "[]"))
		if err != nil {
			return nil, &InvalidSpecError{Field: "extra host " + h.Host, Err: err}
		}
		if h.Host == "" || strings.ContainsAny(h.Host, " \t\r\n#\x00") {
			return nil, &InvalidSpecError{Field: "extra host", Err: fmt.Errorf("%q is no host name", h.Host)}
		}
		fmt.Fprintf(&b, "%s\t%s\n", ip, h.Host)
	}
	return b.Bytes(), nil
}
