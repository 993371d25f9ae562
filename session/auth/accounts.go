package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/credentials"
	"github.com/docker/cli/cli/config/types"
)

// hubKey is what docker's configuration calls Docker Hub.
const hubKey = "https://index.docker.io/v1/"

// accountLife is how long what was found is used without looking again. Cloud providers' helpers hand out passwords that last five
// minutes.
const accountLife = 4*time.Minute + 50*time.Second

// account is what the configuration has for one host. The zero value is none.
type account struct {
	username, secret string // without a user name the secret is an identity token
	registryToken    string // a bearer token to be used as it is
}

// configKey is the name under which the configuration keeps a registry.
func configKey(host string) string {
	if isHub(host) {
		return hubKey
	}
	return host
}

func isHub(host string) bool {
	return host == "registry-1.docker.io" || host == "index.docker.io" || host == "docker.io"
}

func loadConfig() (*configfile.ConfigFile, error) {
	cf, err := config.Load(config.Dir())
	if err != nil {
		return nil, err
	}
	if !cf.ContainsAuth() {
		cf.CredentialsStore = credentials.DetectDefaultStore(cf.CredentialsStore)
	}
	return cf, nil
}

// hangMemory is how long a helper that did not answer is not run again.
const hangMemory = time.Minute

// accounts looks accounts up. Of one helper one process runs at a time: some hang when they run twice at once. What it takes does not hold up who
// needs another helper, or none.
type accounts struct {
	load    func() (*configfile.ConfigFile, error)
	scoped  func() []scopedConfig
	timeout time.Duration

	mu    sync.Mutex              // guards what follows
	found map[string]foundAccount // by host, and directory of a scoped configuration
	turns map[string]*turn        // by helper
}

type foundAccount struct {
	account
	at time.Time
}

// turn is the right to run a helper.
type turn struct {
	busy chan struct{} // holds a value while it runs
	// hung is the error of a run that took too long, until then; they belong to whoever has the turn.
	hung  error
	until time.Time
}

func newAccounts(load func() (*configfile.ConfigFile, error), scopedDir string, helperTimeout time.Duration) *accounts {
	return &accounts{
		load: sync.OnceValues(load), scoped: sync.OnceValue(func() []scopedConfig { return findScoped(scopedDir) }),
		timeout: helperTimeout, found: map[string]foundAccount{}, turns: map[string]*turn{},
	}
}

// lookup returns the account for a host: that of the configuration that counts for the scopes, if there is one, else that of the host. The
// zero value is none. What was found is remembered for a while. An error names the file or the helper that failed, and no secret.
func (a *accounts) lookup(ctx context.Context, host string, scopes ...string) (account, error) {
	acc, err := a.find(ctx, host, scopes)
	if other := hubBehind(host); err == nil && other != "" && acc == (account{}) {
		acc, err = a.find(ctx, other, scopes)
	}
	if err != nil {
		return account{}, fmt.Errorf("credentials for %s: %w", host, err)
	}
	return acc, nil
}

// hubBehind returns Docker Hub for registries of Docker's that take its accounts, "" for others.
func hubBehind(host string) string {
	if host == "dhi.io" || host == "registry.scout.docker.com" {
		return "registry-1.docker.io"
	}
	return ""
}

// find is lookup for exactly this host.
func (a *accounts) find(ctx context.Context, host string, scopes []string) (account, error) {
	key, load := host, a.load
	if c := pick(a.scoped(), host, scopes); c != nil {
		key, load = host+" "+c.dir, c.load
	}
	if acc, ok := a.known(key); ok {
		return acc, nil
	}
	cf, err := load()
	if err != nil {
		return account{}, fmt.Errorf("docker's configuration: %w", err)
	}
	return a.read(ctx, cf, configKey(host), key)
}

func (a *accounts) known(key string) (account, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f, ok := a.found[key]
	return f.account, ok && time.Since(f.at) < accountLife
}

func (a *accounts) remember(key string, ac types.AuthConfig) account {
	acc := account{username: ac.Username, secret: ac.Password, registryToken: ac.RegistryToken}
	if ac.IdentityToken != "" {
		acc.username, acc.secret = "", ac.IdentityToken
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.found[key] = foundAccount{acc, time.Now()}
	return acc
}

// hasScoped tells whether there is an account for some repositories of the host.
func (a *accounts) hasScoped(host string) bool {
	return slices.ContainsFunc(a.scoped(), func(c scopedConfig) bool { return c.isOf(host) })
}

// read asks the places that docker asks, in its order: the environment, the server's helper, the helper for all servers, the file. The
// account is remembered under key.
func (a *accounts) read(ctx context.Context, cf *configfile.ConfigFile, server, key string) (account, error) {
	helper, ok := cf.CredentialHelpers[server]
	if !ok {
		helper = cf.CredentialsStore
	}
	if helper == "" {
		ac, err := cf.GetAuthConfig(server) // environment and file
		if err != nil {
			return account{}, err
		}
		return a.remember(key, ac), nil
	}
	// A configuration without contents answers from the environment alone. Docker's own way to the helper cannot be given up.
	if ac, err := configfile.New("").GetAuthConfig(server); err == nil && (ac.Username != "" || ac.Password != "") {
		return a.remember(key, ac), nil
	}
	t := a.turn(helper)
	select {
	case t.busy <- struct{}{}:
		defer func() { <-t.busy }()
	case <-ctx.Done():
		return account{}, context.Cause(ctx)
	}
	if acc, ok := a.known(key); ok {
		return acc, nil
	}
	if time.Now().Before(t.until) {
		return account{}, t.hung
	}
	ac, err := runHelper(ctx, helper, server, a.timeout)
	if errors.Is(err, errHelperHangs) {
		t.hung, t.until = err, time.Now().Add(hangMemory)
	}
	if err != nil {
		return account{}, err
	}
	return a.remember(key, ac), nil
}

func (a *accounts) turn(helper string) *turn {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.turns[helper]
	if t == nil {
		t = &turn{busy: make(chan struct{}, 1)}
		a.turns[helper] = t
	}
	return t
}
