package address

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	dir := t.TempDir() // without certificates the system's authorities count
	for addr, want := range map[string]Address{
		"unix:///run/s.sock": {Network: "unix", Target: "/run/s.sock"},
		"tcp://host:1234":    {Network: "tcp", Target: "host:1234"},
		"tcp://[::1]:1234/":  {Network: "tcp", Target: "[::1]:1234"},
		"unix:///a?certs=no": {Network: "unix", Target: "/a?certs=no"},
	} {
		if got, err := Parse(addr); err != nil || got != want {
			t.Errorf("%s: %+v, %v", addr, got, err)
		}
	}
	a, err := Parse("tcp://host:1?certs=" + dir)
	if err != nil || a.TLS == nil || a.TLS.ServerName != "host" || a.Target != "host:1" {
		t.Errorf("with certificates: %+v, %v", a, err)
	}
	if a, err = Parse("tcp://host:1?certs=" + dir + "&servername=other"); err != nil || a.TLS.ServerName != "other" {
		t.Errorf("with a name: %+v, %v", a, err)
	}
	for addr, why := range map[string]string{
		"": "names no socket", "unix://": "names no socket", "http://x": "only unix:// and tcp://", "tcp://host": "host:port",
		"tcp://host:1?cert=x": "neither", "tcp://host:1?servername=x": "without certs", "tcp://host:1?%zz": "escape",
	} {
		if _, err := Parse(addr); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v, want %q", addr, err, why)
		}
	}
}
