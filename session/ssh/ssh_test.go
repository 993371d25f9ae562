package ssh_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"
	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/sessiontest"
	"github.com/slipwaybuild/slipway/session/ssh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		in   string
		want ssh.Config
		err  string
	}{
		{in: "default", want: ssh.Config{ID: "default"}},
		{in: "", want: ssh.Config{}},
		{in: "a=/s", want: ssh.Config{ID: "a", Paths: []string{"/s"}}},
		{in: "a=/k1,/k2", want: ssh.Config{ID: "a", Paths: []string{"/k1", "/k2"}}},
		{in: "=/s", want: ssh.Config{Paths: []string{"/s"}}},
		{in: "a=raw=true,/s", want: ssh.Config{ID: "a", Paths: []string{"/s"}, Raw: true}},
		{in: "a=/s,raw=false", want: ssh.Config{ID: "a", Paths: []string{"/s"}}},
		{in: "a=/x=y", want: ssh.Config{ID: "a", Paths: []string{"/x=y"}}},
		{in: "a=raw=true", err: `raw mode must supply exactly one socket path for "a"`},
		{in: "a=raw=true,/s,/t", err: `raw mode must supply exactly one socket path for "a"`},
		{in: "a=raw=perhaps,/s", err: "invalid value for 'raw': perhaps: "},
	} {
		got, err := ssh.Parse(tc.in)
		switch {
		case tc.err == "" && (err != nil || !reflect.DeepEqual(got, tc.want)):
			t.Errorf("%q: %+v, %v; want %+v", tc.in, got, err, tc.want)
		case tc.err != "" && (err == nil || !strings.HasPrefix(err.Error(), tc.err)):
			t.Errorf("%q: %v; want %s", tc.in, err, tc.err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"default", "a=b,c", "a=raw=1,b", "=", "a=,", "raw=true"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		c, err := ssh.Parse(in)
		if err == nil && c.Raw && len(c.Paths) != 1 {
			t.Errorf("%+v", c)
		}
	})
}

// keyFile makes a private key file, with a passphrase if one is given.
func keyFile(t *testing.T, passphrase string) string {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := gossh.MarshalPrivateKey(key, "a key")
	if passphrase != "" {
		block, err = gossh.MarshalPrivateKeyWithPassphrase(key, "a key", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// socket serves each connection with f.
func socket(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				f(c)
				_ = c.Close()
			}()
		}
	}()
	return path
}

func TestWhatCannotBeForwarded(t *testing.T) {
	key, locked := keyFile(t, ""), keyFile(t, "geheim")
	agentSock := socket(t, func(c net.Conn) { _ = agent.ServeAgent(agent.NewKeyring(), c) })
	answering := func(b []byte) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = io.ReadFull(c, make([]byte, 5))
			_, _ = c.Write(b)
		}
	}
	cutOff := socket(t, answering([]byte{0, 0, 0, 2, 12, 0}))
	other := socket(t, answering([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")))
	deaf := socket(t, func(net.Conn) {})
	noKey := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(noKey, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSH_AUTH_SOCK", "")
	for name, tc := range map[string]struct {
		configs []ssh.Config
		want    string
	}{
		"no agent":        {[]ssh.Config{{ID: "a"}}, "invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set"},
		"twice":           {[]ssh.Config{{Paths: []string{key}}, {ID: "default", Paths: []string{key}}}, `duplicate agent ID "default"`},
		"key and socket":  {[]ssh.Config{{Paths: []string{key, agentSock}}}, "invalid combination of keys and sockets"},
		"socket and key":  {[]ssh.Config{{Paths: []string{agentSock, key}}}, "only single socket allowed"},
		"raw key":         {[]ssh.Config{{Paths: []string{key}, Raw: true}}, "raw mode only supported with socket paths"},
		"missing":         {[]ssh.Config{{Paths: []string{"/nosuchfile"}}}, "no such file"},
		"no key":          {[]ssh.Config{{Paths: []string{noKey}}}, "failed to parse " + noKey},
		"with passphrase": {[]ssh.Config{{Paths: []string{locked}}}, "has a passphrase; add it to an agent (ssh-add " + locked + ")"},
		"empty agent":     {[]ssh.Config{{Paths: []string{agentSock}}}, agentSock + ": the agent has no keys: add one (ssh-add), or unlock it (ssh-add -X)"},
		"cut off":         {[]ssh.Config{{Paths: []string{cutOff}}}, cutOff + ": the agent's list of keys is cut off"},
		"no agent at all": {[]ssh.Config{{Paths: []string{other}}}, other + ": no answer from the agent"},
		"deaf agent":      {[]ssh.Config{{Paths: []string{deaf}}}, deaf + ": no answer from the agent"},
	} {
		if _, err := ssh.New(t.Context(), tc.configs); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v; want %s", name, err, tc.want)
		}
	}
}

// use lists, signs and verifies over a forwarded agent, and then tries what is not allowed.
func use(t *testing.T, conn net.Conn, comment string) {
	t.Helper()
	a := agent.NewClient(conn)
	keys, err := a.List()
	if err != nil || len(keys) != 1 || comment != "" && keys[0].Comment != comment {
		t.Fatalf("keys: %v, %v", keys, err)
	}
	for _, data := range [][]byte{[]byte("first"), bytes.Repeat([]byte("x"), 100_000)} {
		sig, err := a.Sign(keys[0], data)
		if err != nil {
			t.Fatalf("sign: %v", err)
		}
		pub, err := gossh.ParsePublicKey(keys[0].Marshal())
		if err != nil {
			t.Fatal(err)
		}
		if err := pub.Verify(data, sig); err != nil {
			t.Errorf("signature: %v", err)
		}
	}
	_, fresh, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, extErr := a.Extension("session-bind@openssh.com", []byte("x"))
	for what, err := range map[string]error{
		"add": a.Add(agent.AddedKey{PrivateKey: fresh}), "remove": a.Remove(keys[0]), "remove all": a.RemoveAll(),
		"lock": a.Lock([]byte("x")), "unlock": a.Unlock([]byte("x")), "extension": extErr,
	} {
		if err == nil {
			t.Errorf("%s was let through", what)
		}
	}
	if again, err := a.List(); err != nil || len(again) != 1 {
		t.Errorf("keys afterwards: %v, %v", again, err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

func forward(t *testing.T, configs ...ssh.Config) *session.Group {
	t.Helper()
	a, err := ssh.New(t.Context(), configs)
	if err != nil {
		t.Fatal(err)
	}
	return sessiontest.Pair(t, a)
}

func TestKeyFiles(t *testing.T) {
	t.Parallel()
	key := keyFile(t, "")
	g := forward(t, ssh.Config{Paths: []string{key}})
	for range 2 { // connections are independent
		conn, err := ssh.Dial(t.Context(), g, "")
		if err != nil {
			t.Fatal(err)
		}
		use(t, conn, key)
	}
}

func TestRealAgent(t *testing.T) {
	if _, err := exec.LookPath("ssh-agent"); err != nil {
		t.Skip("ssh-agent is not installed (Debian: openssh-client)")
	}
	sock := filepath.Join(t.TempDir(), "agent")
	cmd := exec.Command("ssh-agent", "-D", "-a", sock)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := out.Read(make([]byte, 1)); err != nil { // it speaks when it listens
		t.Fatal(err)
	}
	add := exec.Command("ssh-add", keyFile(t, ""))
	add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+sock)
	if text, err := add.CombinedOutput(); err != nil {
		t.Fatalf("ssh-add: %v: %s", err, text)
	}
	t.Setenv("SSH_AUTH_SOCK", sock)
	g := forward(t, ssh.Config{ID: "default"}, ssh.Config{ID: "path", Paths: []string{sock}})
	for _, id := range []string{"", "path"} {
		if err := ssh.Check(t.Context(), g, id); err != nil {
			t.Errorf("check: %v", err)
		}
		conn, err := ssh.Dial(t.Context(), g, id)
		if err != nil {
			t.Fatal(err)
		}
		use(t, conn, "")
	}
	if err := ssh.Check(t.Context(), g, "nosuch"); !errors.Is(err, ssh.ErrNotForwarded) || !strings.Contains(err.Error(), `no SSH key "nosuch" forwarded from the client`) || !strings.Contains(err.Error(), "unset ssh forward key nosuch") {
		t.Errorf("check of another id: %v", err)
	}
	if _, err := ssh.Dial(t.Context(), g, "nosuch"); !errors.Is(err, ssh.ErrNotForwarded) {
		t.Errorf("dial of another id: %v", err)
	}
	// An agent that dies is noticed by the check before a step starts.
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if err := ssh.Check(t.Context(), g, ""); err == nil || errors.Is(err, ssh.ErrNotForwarded) {
		t.Errorf("check of a dead agent: %v", err)
	}
}

func TestClientWithoutForwarding(t *testing.T) {
	t.Parallel()
	if err := ssh.Check(t.Context(), sessiontest.Pair(t), ""); !errors.Is(err, ssh.ErrNotForwarded) {
		t.Errorf("check: %v", err)
	}
}

// TestRawSocket: everything passes, and each direction ends by itself.
func TestRawSocket(t *testing.T) {
	t.Parallel()
	path := socket(t, func(c net.Conn) {
		all, _ := io.ReadAll(c)
		_, _ = c.Write(bytes.ToUpper(all))
	})
	g := forward(t, ssh.Config{ID: "raw", Paths: []string{path}, Raw: true})
	conn, err := ssh.Dial(t.Context(), g, "raw")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("no agent's protocol ", 50_000)
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); string(got) != strings.ToUpper(text) || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	t.Parallel()
	path := socket(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	g := forward(t, ssh.Config{Paths: []string{path}, Raw: true})
	ctx, cancel := context.WithCancel(t.Context())
	conn, err := ssh.Dial(ctx, g, "")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("read after the context ended")
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}
