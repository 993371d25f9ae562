package auth

import (
	"context"
	"fmt"
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

// accounts looks accounts up, one at a time: some helpers hang when they run twice at once.
type accounts struct {
	load    func() (*configfile.ConfigFile, error)
	timeout time.Duration
	turn    chan struct{} // holds a value while somebody looks

	found map[string]foundAccount // belongs to whoever has the turn
}

type foundAccount struct {
	account
	at time.Time
}

func newAccounts(load func() (*configfile.ConfigFile, error), helperTimeout time.Duration) *accounts {
	return &accounts{load: sync.OnceValues(load), timeout: helperTimeout, turn: make(chan struct{}, 1), found: map[string]foundAccount{}}
}

// lookup returns the account for a host. An error names the file or the helper that failed, and no secret.
func (a *accounts) lookup(ctx context.Context, host string) (account, error) {
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return account{}, fmt.Errorf("credentials for %s: %w", host, context.Cause(ctx))
	}
	if f, ok := a.found[host]; ok && time.Since(f.at) < accountLife {
		return f.account, nil
	}
	cf, err := a.load()
	if err != nil {
		return account{}, fmt.Errorf("credentials for %s: docker's configuration: %w", host, err)
	}
	ac, err := a.read(ctx, cf, configKey(host))
	if err != nil {
		return account{}, fmt.Errorf("credentials for %s: %w", host, err)
	}
	acc := account{username: ac.Username, secret: ac.Password, registryToken: ac.RegistryToken}
	if ac.IdentityToken != "" {
		acc.username, acc.secret = "", ac.IdentityToken
	}
	a.found[host] = foundAccount{acc, time.Now()}
	return acc, nil
}

// read asks the places that docker asks, in its order: the environment, the host's helper, the helper for all hosts, the file.
func (a *accounts) read(ctx context.Context, cf *configfile.ConfigFile, key string) (types.AuthConfig, error) {
	helper, ok := cf.CredentialHelpers[key]
	if !ok {
		helper = cf.CredentialsStore
	}
	if helper == "" {
		return cf.GetAuthConfig(key) // environment and file
	}
	// A configuration without contents answers from the environment alone. Docker's own way to the helper cannot be given up.
	if ac, err := configfile.New("").GetAuthConfig(key); err == nil && (ac.Username != "" || ac.Password != "") {
		return ac, nil
	}
	return runHelper(ctx, helper, key, a.timeout)
}
