package ssh

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// maxKeyFile bounds a private key file, in bytes.
const maxKeyFile = 100 << 10

// answerTime bounds how long an agent may take to list its keys.
const answerTime = 5 * time.Second

// forward is one id's agent or socket. Exactly one of socket and keys is set.
type forward struct {
	socket string
	keys   agent.Agent
	raw    bool
}

// open resolves a configuration. It reads key files, and looks at a socket without connecting.
func open(c Config) (*forward, error) {
	paths := c.Paths
	if len(paths) == 0 || len(paths) == 1 && paths[0] == "" {
		sock := os.Getenv("SSH_AUTH_SOCK")
		if sock == "" {
			return nil, errors.New("invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set")
		}
		paths = []string{sock}
	}
	f := &forward{raw: c.Raw}
	for _, p := range paths {
		if f.socket != "" {
			return nil, errors.New("only single socket allowed")
		}
		fi, err := os.Stat(p)
		if err != nil {
			return nil, err
		}
		if fi.Mode().Type() == os.ModeSocket {
			f.socket = p
			continue
		}
		if c.Raw {
			return nil, errors.New("raw mode only supported with socket paths")
		}
		if f.keys == nil {
			f.keys = agent.NewKeyring()
		}
		if err := addKey(f.keys, p); err != nil {
			return nil, err
		}
	}
	if f.socket != "" && f.keys != nil {
		return nil, errors.New("invalid combination of keys and sockets")
	}
	return f, nil
}

func addKey(ring agent.Agent, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("failed to open %s: %w", path, err)
	}
	defer func() { _ = f.Close() }() // it was only read
	pem, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return fmt.Errorf("failed to read %s: %w", path, err)
	}
	if len(pem) > maxKeyFile {
		return fmt.Errorf("failed to read %s: more than %d bytes, not a private key", path, maxKeyFile)
	}
	key, err := ssh.ParseRawPrivateKey(pem)
	if locked := (*ssh.PassphraseMissingError)(nil); errors.As(err, &locked) {
		return fmt.Errorf("failed to parse %s: the key has a passphrase; add it to an agent (ssh-add %s) and forward that", path, path)
	}
	if err != nil {
		return fmt.Errorf("failed to parse %s: %w", path, err)
	}
	if err := ring.Add(agent.AddedKey{PrivateKey: key, Comment: path}); err != nil {
		return fmt.Errorf("failed to add %s to agent: %w", path, err)
	}
	return nil
}

// dial connects to the socket. It is not for keys.
func (f *forward) dial(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{Timeout: 2 * time.Second}
	return d.DialContext(ctx, "unix", f.socket)
}

// checkKeys tells whether the agent answers and has any key. Of a raw forward it tells whether somebody listens.
func (f *forward) checkKeys(ctx context.Context) error {
	n, err := f.check(ctx)
	if err == nil && n == 0 && !f.raw {
		return fmt.Errorf("%s: the agent has no keys: add one (ssh-add), or unlock it (ssh-add -X)", f.socket)
	}
	return err
}

// check tells whether the agent answers, and how many keys it says that it has.
func (f *forward) check(ctx context.Context) (keys uint32, err error) {
	if f.keys != nil {
		list, err := f.keys.List()
		return uint32(len(list)), err
	}
	conn, err := f.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }() // the answer is all that counts
	if f.raw {
		return 0, nil // what it speaks is not known
	}
	if err := conn.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return 0, err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if _, err := conn.Write([]byte{0, 0, 0, 1, agentRequestIdentities}); err != nil {
		return 0, fmt.Errorf("%s: no answer from the agent: %w", f.socket, err)
	}
	answer, err := readMessage(conn, make([]byte, 4+maxAgentMessage))
	if err != nil {
		return 0, fmt.Errorf("%s: no answer from the agent: %w", f.socket, err)
	}
	if answer[4] != agentIdentitiesAnswer {
		return 0, fmt.Errorf("%s: the agent does not list its keys (message %d)", f.socket, answer[4])
	}
	if len(answer) < 9 {
		return 0, fmt.Errorf("%s: the agent's list of keys is cut off", f.socket)
	}
	return binary.BigEndian.Uint32(answer[5:]), nil
}
