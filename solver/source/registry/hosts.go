package registry

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

const (
	dockerHub     = "docker.io"
	dockerHubHost = "registry-1.docker.io"
)

// endpointKey names one way of reaching a host. Mirrors are not tried for long: there is someone else to ask.
type endpointKey struct {
	host     string
	insecure bool
	mirror   bool
	scheme   string // "" is as configured
}

// endpoint is a configured host.
type endpoint struct {
	host   string // to connect to
	scheme string
	// either says that the host may turn out to speak http though scheme is https.
	either bool
	// registry sends requests to the registry, token to its token server.
	registry, token *http.Client
	transports      []*http.Transport
}

// endpoint returns the configured way to a host, once for all who use it, so that they share connections.
func (r *Registry) endpoint(k endpointKey) (*endpoint, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, ok := r.endpoints[k]; ok {
		return e, nil
	}
	e, err := r.newEndpoint(k)
	if err != nil {
		return nil, fmt.Errorf("configure registry %q: %w", k.host, err)
	}
	r.endpoints[k] = e
	return e, nil
}

func (r *Registry) newEndpoint(k endpointKey) (*endpoint, error) {
	c := r.hosts[k.host]
	local := isLoopback(k.host)
	ownCerts := len(c.CA)+len(c.KeyPairs)+len(c.TLSConfigDirs) > 0
	insecure := k.insecure || isTrue(c.Insecure) || local && c.Insecure == nil && !ownCerts

	e := &endpoint{host: k.host, scheme: "https"}
	if k.host == dockerHub {
		e.host = dockerHubHost
	}
	switch {
	case k.scheme != "":
		e.scheme = k.scheme
	case isTrue(c.HTTP):
		e.scheme = "http"
	case c.HTTP == nil:
		e.either = local || k.insecure || isTrue(c.Insecure)
	}

	strict, err := tlsConfig(c)
	if err != nil {
		return nil, err
	}
	own := strict.Clone()
	own.InsecureSkipVerify = insecure
	// Other hosts, to which a registry redirects, get neither the client's certificate nor its indulgence.
	foreign := strict.Clone()
	foreign.Certificates = nil

	ownT, foreignT := newTransport(own, r.connections), newTransport(foreign, r.connections)
	e.transports = []*http.Transport{ownT, foreignT}
	var rt http.RoundTripper = &split{host: e.host, own: ownT, foreign: foreignT}
	if e.either {
		rt = &negotiator{host: e.host, next: rt}
	}
	attempts := maxAttempts
	if k.mirror {
		attempts = 1
	}
	rt = &retrier{next: rt, attempts: attempts, backoff: r.backoff, log: r.log}
	e.registry = &http.Client{Transport: rt}
	e.token = &http.Client{Transport: limitBody{next: rt, limit: maxTokenResponse}, CheckRedirect: checkTokenRedirect}
	return e, nil
}

// registryHosts returns the hosts to ask for the images of namespace, the host of a reference, in order.
func (r *Registry) registryHosts(namespace string, o ResolverOptions, authorize func(*endpoint) docker.Authorizer) ([]docker.RegistryHost, error) {
	var out []docker.RegistryHost
	for _, m := range r.hosts[namespace].Mirrors {
		k, prefix, err := parseMirror(m)
		if err != nil {
			return nil, fmt.Errorf("mirror of registry %q: %w", namespace, err)
		}
		e, err := r.endpoint(k)
		if err != nil {
			return nil, err
		}
		out = append(out, e.registryHost(authorize, prefix, docker.HostCapabilityPull|docker.HostCapabilityResolve))
	}
	e, err := r.endpoint(endpointKey{host: namespace, insecure: o.Insecure})
	if err != nil {
		return nil, err
	}
	all := docker.HostCapabilityPull | docker.HostCapabilityResolve | docker.HostCapabilityPush | docker.HostCapabilityReferrers
	return append(out, e.registryHost(authorize, "", all)), nil
}

func (e *endpoint) registryHost(authorize func(*endpoint) docker.Authorizer, prefix string, can docker.HostCapabilities) docker.RegistryHost {
	return docker.RegistryHost{
		Client:       e.registry,
		Authorizer:   authorize(e),
		Host:         e.host,
		Scheme:       e.scheme,
		Path:         path.Join("/v2", prefix),
		Capabilities: can,
	}
}

// parseMirror reads "[scheme://]host[/path]".
func parseMirror(s string) (endpointKey, string, error) {
	full := s
	if !strings.Contains(s, "://") {
		full = "//" + s
	}
	u, err := url.Parse(full)
	if err != nil {
		return endpointKey{}, "", fmt.Errorf("%q is not a host", redact(s))
	}
	if u.Host == "" || u.RawQuery != "" || u.User != nil || u.Scheme != "" && u.Scheme != "http" && u.Scheme != "https" {
		return endpointKey{}, "", fmt.Errorf("%q is not a host, or a host and a path", redact(s))
	}
	return endpointKey{host: u.Host, mirror: true, scheme: u.Scheme}, strings.Trim(u.Path, "/"), nil
}

// isLoopback tells whether a registry host, with or without port, is this machine.
func isLoopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

func isTrue(b *bool) bool { return b != nil && *b }
