package registry

import (
	"cmp"
	"crypto/rand"
	"log/slog"
	"net/http"
	"sync"
	"time"

	containerdlog "github.com/containerd/log"
)

// HostConfig says how one registry host is reached. The keys are those of buildkitd.toml's registry."host".
type HostConfig struct {
	// Mirrors are asked first, in order, for pulling: "host", "host/path", or either with a scheme before it.
	Mirrors []string `toml:"mirrors"`
	// HTTP means plain http. Unset, both are tried on loopback addresses and where Insecure is set, https first.
	HTTP *bool `toml:"http"`
	// Insecure takes any certificate. Unset, it is true for loopback addresses without certificates of their own here.
	Insecure *bool `toml:"insecure"`
	// CA are files of certificates to trust besides the system's.
	CA []string `toml:"ca"`
	// KeyPairs are client certificates.
	KeyPairs []KeyPair `toml:"keypair"`
	// TLSConfigDirs hold *.crt (CAs) and *.cert with *.key (client certificates), as /etc/docker/certs.d/<host> does.
	TLSConfigDirs []string `toml:"tlsconfigdir"`
}

// KeyPair names the two files of a client certificate.
type KeyPair struct {
	Key  string `toml:"key"`
	Cert string `toml:"cert"`
}

// Options goes with [New].
type Options struct {
	// Hosts are configured by name, with port if it has one; "docker.io" is Docker Hub.
	Hosts map[string]HostConfig
	// UserAgent is sent with every request; empty is "slipway".
	UserAgent string
	// Backoff is the first pause before a request is sent again; it doubles each time. 0 is 200ms.
	Backoff time.Duration
	// Idle is how long a download may bring nothing before it is taken up on another connection. 0 is a minute.
	Idle time.Duration
	// MaxConnections is how many connections to one host are open at a time; 0 is no limit.
	MaxConnections int
	// Logger takes what is retried or fallen back from; nil is silence.
	Logger *slog.Logger
}

// Registry is shared by all builds. All methods are safe for concurrent use.
type Registry struct {
	hosts     map[string]HostConfig
	userAgent string
	log       *slog.Logger
	// quiet is given to containerd's code, which would otherwise log to the process's standard error.
	quiet *containerdlog.Entry
	// salt makes the keys that clients sign with, and the hashes of credentials, worthless in any other process.
	salt    []byte
	tokens  *tokenCache
	grants  grants
	backoff time.Duration
	idle    time.Duration
	// connections to one host, at most; 0 is no limit.
	connections int

	mu         sync.Mutex // guards what follows
	endpoints  map[endpointKey]*endpoint
	challenges map[string]challenge // by host
}

// New returns a registry client. It reads the certificates that the hosts name and opens no connection.
func New(o Options) (*Registry, error) {
	r := &Registry{
		hosts:       o.Hosts,
		connections: o.MaxConnections,
		userAgent:   cmp.Or(o.UserAgent, "slipway"),
		log:         o.Logger,
		quiet:       &containerdlog.Entry{Logger: mute(containerdlog.L.Logger)},
		salt:        make([]byte, 32),
		tokens:      newTokenCache(),
		backoff:     cmp.Or(o.Backoff, 200*time.Millisecond),
		idle:        cmp.Or(o.Idle, time.Minute),
		endpoints:   map[endpointKey]*endpoint{},
		challenges:  map[string]challenge{},
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if _, err := rand.Read(r.salt); err != nil {
		return nil, err
	}
	for host := range o.Hosts {
		if _, err := r.endpoint(endpointKey{host: host}); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Close closes idle connections. Requests under way are not waited for.
func (r *Registry) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.endpoints {
		for _, t := range e.transports {
			t.CloseIdleConnections()
		}
	}
	return nil
}

func (r *Registry) challenge(host string) (challenge, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.challenges[host]
	return c, ok
}

func (r *Registry) setChallenge(host string, c challenge) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.challenges[host] = c
}

// header is sent with every request.
func (r *Registry) header() http.Header { return http.Header{"User-Agent": {r.userAgent}} }

// mute returns a logger of the type of the one given that logs nothing: at its zero level only a panic would be logged. It spares
// an import of the logging library that containerd uses.
func mute[L any](*L) *L { return new(L) }
