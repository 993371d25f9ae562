package listen

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestOpenErrors(t *testing.T) {
	for addr, want := range map[string]string{
		"/run/x":             "did you mean unix:///run/x?",
		"npipe:////./pipe/x": "named pipes",
		"udp://1.2.3.4:5":    "only unix://, tcp:// and fd://",
		"tcp://no port":      "listen on tcp://no port",
		"fd://x":             "no number of a file",
		"fd://":              "started by systemd",
		"unix://":            "not a unix:// address",
	} {
		if l, err := Open(t.Context(), addr, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, %v, want %q", addr, l, err, want)
		}
	}
}

func TestPassedSockets(t *testing.T) {
	var files []*os.File
	for range 2 {
		l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.(*net.UnixListener).File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = l.Close(), f.Close() })
		files = append(files, f)
	}
	all, err := passed("", files)
	if err != nil || len(all) != 2 {
		t.Fatalf("%v, %v", all, err)
	}
	one, err := passed(strconv.Itoa(int(files[1].Fd())), files)
	if err != nil || len(one) != 1 || one[0].Addr().String() != all[1].Addr().String() {
		t.Errorf("%v, %v", one, err)
	}
	for _, l := range append(all, one...) {
		path := l.Addr().String()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Error("the name of a passed socket was removed")
		}
	}
	if _, err := passed("9999", files); err == nil {
		t.Error("a socket that was not passed was found")
	}
}

func TestCertificates(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{bad, "/nowhere"} {
		if _, err := LoadCertificates(path, path, ""); err == nil {
			t.Errorf("certificate %s was taken", path)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add("fd://3")
	f.Add("npipe://x")
	f.Fuzz(func(t *testing.T, addr string) {
		if strings.HasPrefix(addr, "tcp://") || strings.HasPrefix(addr, "unix://") {
			t.Skip("would listen for real")
		}
		if l, err := Open(t.Context(), addr, Options{}); err == nil {
			t.Errorf("%q: listens at %v", addr, l)
		}
	})
}
