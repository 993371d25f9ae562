package git

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/secrets"
	"github.com/slipwaybuild/slipway/session/ssh"
	"github.com/slipwaybuild/slipway/solver/source"
)

// command prepares git for one piece of work on q's remote, with the credentials of those who wait for it. done ends what was
// set up.
func (s *Source) command(ctx context.Context, env source.Env, q *query) (g *git, done func(), err error) {
	g = &git{binary: s.o.Git, dir: s.o.Root, log: env.Progress}
	sessions := env.Sessions()
	if err := authorise(ctx, g, sessions, q); err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp("", "slipway-git-")
	if err != nil {
		return nil, nil, err
	}
	remove := func() {
		if err := os.RemoveAll(dir); err != nil {
			s.o.Logger.Warn("remove git's temporary directory", "error", err)
		}
	}
	stop, err := setUpSSH(ctx, g, sessions, q, dir)
	if err != nil {
		remove()
		return nil, nil, err
	}
	return g, func() { stop(); remove() }, nil
}

// authorise takes the credentials for http from the URL, or from the first secret that a client has.
func authorise(ctx context.Context, g *git, sessions *session.Group, q *query) error {
	header, secret, err := header(ctx, sessions, q)
	if err != nil || header == "" {
		return err
	}
	g.config = append(g.config, config{"http." + scope(q.remote) + ".extraHeader", "Authorization: " + header})
	_, encoded, _ := strings.Cut(header, " ")
	g.hidden = append(g.hidden, header, encoded, secret)
	return nil
}

// header returns the Authorization header, "" for none, and the secret in it.
func header(ctx context.Context, sessions *session.Group, q *query) (header, secret string, err error) {
	if q.auth != nil {
		password, _ := q.auth.Password()
		sessions.Learned("credentials in the URL of "+q.remote, []byte(password))
		return basic(q.auth.Username() + ":" + password), password, nil
	}
	u, err := url.Parse(q.remote)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || len(sessions.IDs()) == 0 {
		return "", "", nil // no URL, but user@host:path
	}
	for _, c := range []struct {
		name  string
		host  string
		token bool
	}{{q.headerSecret, "." + u.Host, false}, {q.tokenSecret, "." + u.Host, true}, {q.headerSecret, "", false}, {q.tokenSecret, "", true}} {
		if c.name == "" {
			continue
		}
		v, err := secrets.Get(ctx, sessions, c.name+c.host)
		switch {
		case errors.Is(err, secrets.ErrNotFound) || errors.Is(err, session.ErrNoSession):
			continue
		case err != nil:
			return "", "", err
		}
		value := strings.TrimSpace(string(v))
		if c.token {
			return basic("x-access-token:" + value), value, nil
		}
		return value, value, nil
	}
	return "", "", nil
}

func basic(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }

// setUpSSH makes the client's agent and known hosts usable by ssh. The daemon's own keys and configuration never are.
func setUpSSH(ctx context.Context, g *git, sessions *session.Group, q *query, dir string) (stop func(), err error) {
	command := "ssh -F /dev/null -o BatchMode=yes -o IdentityFile=none"
	if q.knownHosts != "" {
		p := filepath.Join(dir, "known_hosts")
		if err := os.WriteFile(p, []byte(q.knownHosts), 0o600); err != nil {
			return nil, err
		}
		command += " -o StrictHostKeyChecking=yes -o GlobalKnownHostsFile=/dev/null -o UserKnownHostsFile=" + quote(p)
	} else {
		// As BuildKit does: clients that can, send the known hosts.
		command += " -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
	}
	g.env = append(g.env, "GIT_SSH_COMMAND="+command, "GIT_SSH_VARIANT=ssh")
	if q.sshSocket == "" || !needsSSH(q.remote) {
		return func() {}, nil
	}
	if err := ssh.Check(ctx, sessions, q.sshSocket); err != nil {
		return nil, err
	}
	sock := filepath.Join(dir, "agent")
	l, err := net.Listen("unix", sock)
	if err != nil {
		return nil, fmt.Errorf("socket for ssh agent: %w", err)
	}
	a := &agent{sessions: sessions, id: q.sshSocket, l: l}
	ctx, a.cancel = context.WithCancel(ctx)
	a.wg.Go(func() { a.serve(ctx) })
	g.env = append(g.env, "SSH_AUTH_SOCK="+sock)
	return a.stop, nil
}

// needsSSH tells whether a remote is reached over ssh. Submodules of another one may be too, but a client whose build needs no
// agent must not be asked for it.
func needsSSH(remote string) bool {
	return strings.HasPrefix(remote, "ssh://") || !strings.Contains(remote, "://")
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// agent is a unix socket whose connections lead to a client's ssh agent.
type agent struct {
	sessions *session.Group
	id       string
	l        net.Listener
	cancel   context.CancelFunc
	wg       sync.WaitGroup
}

func (a *agent) stop() {
	a.cancel()
	_ = a.l.Close() // ends serve; the socket file goes with its directory
	a.wg.Wait()
}

func (a *agent) serve(ctx context.Context) {
	for {
		c, err := a.l.Accept()
		if err != nil {
			return // stopped
		}
		a.wg.Go(func() { a.forward(ctx, c) })
	}
}

// forward carries bytes both ways until one side ends.
func (a *agent) forward(ctx context.Context, local net.Conn) {
	defer func() { _ = local.Close() }() // what was said was said
	remote, err := ssh.Dial(ctx, a.sessions, a.id)
	if err != nil {
		return // ssh tells of the agent that hung up
	}
	defer func() { _ = remote.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = local.Close() })
	defer stop()
	answered := make(chan struct{})
	a.wg.Go(func() {
		defer close(answered)
		_, _ = io.Copy(local, remote)
		_ = local.Close()
	})
	_, _ = io.Copy(remote, local)
	_ = remote.Close()
	<-answered
}
