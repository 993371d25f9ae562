package dockerhost

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func clear(t *testing.T) (config string) {
	t.Helper()
	config = t.TempDir()
	for _, v := range []string{EnvHost, EnvContext, envCertPath, envTLS, envTLSVerify} {
		t.Setenv(v, "")
	}
	t.Setenv(envConfig, config)
	return config
}

func TestHosts(t *testing.T) {
	clear(t)
	for _, test := range []struct{ host, network, addr, wrong string }{
		{"unix:///run/d.sock", "unix", "/run/d.sock", ""},
		{"tcp://h:1", "tcp", "h:1", ""},
		{"tcp://h", "tcp", "h:2375", ""},
		{"h:1", "tcp", "h:1", ""},
		{"tcp://", "tcp", "127.0.0.1:2375", ""},
		{"tcp://[::1]:5", "tcp", "[::1]:5", ""},
		{"ssh://u@h:22/run/d.sock", "", "", ""},
		{"", "", "", "the address is empty"},
		{"unix://", "", "", "names no socket"},
		{"tcp://h:1/path", "", "", "only a host and a port"},
		{"ssh://u:secret@h", "", "", "password"},
		{"ssh://", "", "", "ssh"},
		{"npipe:////./pipe/x", "", "", "by unix://, tcp:// or ssh://"},
		{"fd://", "", "", "by unix://, tcp:// or ssh://"},
	} {
		e, err := ByHost(test.host)
		if test.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), test.wrong) || strings.Contains(err.Error(), "%!") {
				t.Errorf("%s: %v, want %q", test.host, err, test.wrong)
			}
			continue
		}
		if err != nil || e.network != test.network || e.addr != test.addr || (e.command != nil) != (test.network == "") {
			t.Errorf("%s: %+v, %v", test.host, e, err)
		}
	}
}

func TestEnvironment(t *testing.T) {
	clear(t)
	if e, err := FromEnvironment(); e != nil || err != nil {
		t.Errorf("nothing said: %+v, %v", e, err)
	}
	t.Setenv(envTLSVerify, "1")
	t.Setenv(EnvHost, "tcp://h")
	t.Setenv(EnvContext, "no-such")
	e, err := FromEnvironment()
	if err != nil || e.addr != "h:2376" || e.tls == nil || e.tls.InsecureSkipVerify || e.tls.RootCAs != nil || e.Origin != EnvHost {
		t.Errorf("%+v, %v", e, err)
	}
	t.Setenv(envTLSVerify, "")
	t.Setenv(envTLS, "1")
	if e, err := FromEnvironment(); err != nil || !e.tls.InsecureSkipVerify {
		t.Errorf("%+v, %v", e, err)
	}
	t.Setenv(EnvHost, "")
	if _, err := FromEnvironment(); err == nil || !strings.Contains(err.Error(), `docker context "no-such": context not found`) {
		t.Errorf("a context that does not exist: %v", err)
	}
	t.Setenv(EnvContext, "default")
	if e, err := FromEnvironment(); err != nil || e.Host != local {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestTLSFiles(t *testing.T) {
	config := clear(t)
	t.Setenv(envTLSVerify, "1")
	for name, want := range map[string]string{"ca.pem": "holds no certificate", "cert.pem": "cert.pem and key.pem of"} {
		path := filepath.Join(config, name)
		if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ByHost("tcp://h"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := ByHost("unix:///s"); err != nil {
			t.Errorf("a socket needs no TLS: %v", err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestContexts(t *testing.T) {
	config := clear(t)
	put := func(name, text string) string {
		id := fmt.Sprintf("%x", sha256.Sum256([]byte(name)))
		dir := filepath.Join(config, "contexts", "meta", id)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "meta.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return id
	}
	put("plain", `{"Name":"plain","Endpoints":{"docker":{"Host":"tcp://h:1","SkipTLSVerify":false}}}`)
	put("lax", `{"Name":"lax","Endpoints":{"docker":{"Host":"tcp://h","SkipTLSVerify":true}}}`)
	put("none", `{"Name":"none","Endpoints":{}}`)
	put("broken", `{`)
	id := put("secure", `{"Name":"secure","Endpoints":{"docker":{"Host":"tcp://h"}}}`)
	if err := os.MkdirAll(filepath.Join(config, "contexts", "tls", id, endpointName), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"plain": "h:1 false false", "lax": "h:2376 true true", "secure": "h:2376 true false"} {
		e, err := ByContext(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(e.addr, " ", e.secure, " ", e.secure && e.tls.InsecureSkipVerify); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	for name, want := range map[string]string{"none": "no docker endpoint", "broken": "read its metadata", "../x": "context not found"} {
		if _, err := ByContext(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzContext(f *testing.F) {
	f.Add([]byte(`{"Name":"x","Endpoints":{"docker":{"Host":"tcp://h:1","SkipTLSVerify":true}}}`))
	f.Add([]byte(`{"Endpoints":{"docker":{"Host":"ssh://u@h"}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		store := t.TempDir()
		sum := sha256.Sum256([]byte("x"))
		dir := filepath.Join(store, "meta", hex.EncodeToString(sum[:]))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "meta.json"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		if e, err := readContext(store, "x"); err == nil && e.command == nil && (e.network == "" || e.addr == "") {
			t.Errorf("%q leads to %+v", text, e)
		}
	})
}
