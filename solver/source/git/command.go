package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/slipwaybuild/slipway/solver/progress"
)

// ErrNoGit says that there is no git program on the daemon's host.
var ErrNoGit = errors.New(`the daemon's host has no "git": install the package git`)

// git is how git is called: with an environment of its own, no configuration of the host or of a user, no prompts, no hooks, and
// only transports that go over a network. Credentials are in its environment, which only root and the same user can read, and
// not in arguments, which everybody can.
type git struct {
	binary string
	dir    string   // working directory
	config []config // in addition to the fixed ones
	env    []string
	// hidden are strings that must not be seen in errors or logs.
	hidden []string
	log    progress.Writer // takes what git tells people; may be nil
}

type config struct{ key, value string }

// fixed is the configuration of every call.
var fixed = []config{
	{"protocol.allow", "never"},
	{"protocol.http.allow", "always"},
	{"protocol.https.allow", "always"},
	{"protocol.git.allow", "always"},
	{"protocol.ssh.allow", "always"},
	{"core.hooksPath", os.DevNull},
	{"core.fsmonitor", "false"},
	{"init.defaultBranch", "master"},
	{"init.templateDir", ""},
	{"advice.detachedHead", "false"},
	{"gc.auto", "0"},
	{"fetch.fsckObjects", "false"},
	{"safe.directory", "*"}, // the repositories are the daemon's own
	{"http.followRedirects", "initial"},
}

// passed are the variables of the daemon's environment that reach git.
var passed = []string{
	"PATH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy",
	"SSL_CERT_FILE", "SSL_CERT_DIR",
}

// with returns a copy with more configuration.
func (g *git) with(more ...config) *git {
	c := *g
	c.config = slices.Concat(g.config, more)
	return &c
}

// in returns a copy with another working directory.
func (g *git) in(dir string) *git {
	c := *g
	c.dir = dir
	return &c
}

const (
	// maxOutput bounds what git may answer, in bytes.
	maxOutput = 16 << 20
	// maxComplaint is how much of what git says of an error is kept; the end counts.
	maxComplaint = 8 << 10
)

// run runs git and returns its output. Cancelling ctx kills it with all it started.
func (g *git) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, g.binary, args...)
	cmd.Dir = g.dir
	cmd.Env = g.environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// git's helpers keep running when only git is killed.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	out := &limited{left: maxOutput}
	complaint := &tail{}
	cmd.Stdout = out
	said := &logger{g: g}
	cmd.Stderr = io.MultiWriter(complaint, said)
	err := cmd.Run()
	said.flush()
	switch {
	case err == nil && out.over:
		return "", fmt.Errorf("git %s: output larger than %d bytes", args[0], maxOutput)
	case err == nil:
		return out.String(), nil
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case errors.Is(err, exec.ErrNotFound):
		return "", ErrNoGit
	}
	return "", &commandError{args[0], g.hide(strings.TrimSpace(complaint.String())), err}
}

func (g *git) environment() []string {
	env := []string{
		"LC_ALL=C", "HOME=" + os.DevNull, "XDG_CONFIG_HOME=" + os.DevNull,
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_ATTR_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=", "SSH_ASKPASS=", "GIT_LITERAL_PATHSPECS=1", "GIT_LFS_SKIP_SMUDGE=1",
	}
	for _, k := range passed {
		if v, ok := os.LookupEnv(k); ok {
			env = append(env, k+"="+v)
		}
	}
	env = append(env, g.env...)
	all := slices.Concat(fixed, g.config)
	for i, c := range all {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, c.key), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, c.value))
	}
	return append(env, "GIT_CONFIG_COUNT="+strconv.Itoa(len(all)))
}

// hide replaces credentials.
func (g *git) hide(s string) string {
	for _, h := range g.hidden {
		if h != "" {
			s = strings.ReplaceAll(s, h, "xxxxx")
		}
	}
	return s
}

// commandError is a git command that failed, with what git said.
type commandError struct {
	command, complaint string
	err                error
}

func (e *commandError) Error() string {
	if e.complaint == "" {
		return fmt.Sprintf("git %s: %v", e.command, e.err)
	}
	return fmt.Sprintf("git %s: %v: %s", e.command, e.err, e.complaint)
}

func (e *commandError) Unwrap() error { return e.err }

// said tells whether err is of git and says one of these.
func said(err error, texts ...string) bool {
	var e *commandError
	return errors.As(err, &e) && slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(e.complaint, t) })
}

// limited keeps what is written up to a limit, and notes whether there was more.
type limited struct {
	bytes.Buffer
	left int
	over bool
}

func (l *limited) Write(p []byte) (int, error) {
	keep := min(len(p), l.left)
	l.left -= keep
	l.over = l.over || keep < len(p)
	l.Buffer.Write(p[:keep])
	return len(p), nil
}

// tail keeps the end of what is written.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if extra := len(t.b) - maxComplaint; extra > 0 {
		t.b = slices.Delete(t.b, 0, extra)
	}
	return len(p), nil
}

func (t *tail) String() string { return string(t.b) }

// logger passes what git tells people on, line by line, so that credentials are found whole.
type logger struct {
	g    *git
	line []byte
}

func (l *logger) Write(p []byte) (int, error) {
	if l.g.log == nil {
		return len(p), nil
	}
	l.line = append(l.line, p...)
	if i := bytes.LastIndexByte(l.line, '\n'); i >= 0 {
		l.g.log.Log(progress.Stderr, []byte(l.g.hide(string(l.line[:i+1]))))
		l.line = slices.Delete(l.line, 0, i+1)
	}
	if len(l.line) > maxComplaint {
		l.flush()
	}
	return len(p), nil
}

func (l *logger) flush() {
	if l.g.log != nil && len(l.line) > 0 {
		l.g.log.Log(progress.Stderr, []byte(l.g.hide(string(l.line))))
	}
	l.line = nil
}
