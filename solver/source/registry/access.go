package registry

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/pkg/reference"
	digest "github.com/opencontainers/go-digest"
)

const (
	// grantLife is how long a credential is believed to open what it opened. It is as long as tokens last.
	grantLife = 5 * time.Minute
	// maxGrants bounds what is remembered; past it all is forgotten, and asked for again.
	maxGrants = 10_000
	// nobody stands, in a grant, for requests that showed no credential at all.
	nobody = ""
)

// grants remembers which credentials a repository opened for which content. It is what lets content that is here already be given to
// those who might pull it, and to nobody else.
type grants struct {
	mu sync.Mutex
	m  map[grant]time.Time // when it ends; zero is never
}

type grant struct {
	repository, identity string
	digest               digest.Digest
}

func (g *grants) add(repository, identity string, digests ...digest.Digest) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.m) > maxGrants {
		g.m = nil
	}
	if g.m == nil {
		g.m = map[grant]time.Time{}
	}
	until := time.Time{}
	if identity != nobody {
		until = time.Now().Add(grantLife)
	}
	for _, d := range digests {
		g.m[grant{repository, identity, d}] = until
	}
}

func (g *grants) has(repository, identity string, d digest.Digest) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	until, ok := g.m[grant{repository, identity, d}]
	return ok && (until.IsZero() || time.Now().Before(until))
}

// Admit is for content that is here already: it tells whether the registry would give these sessions what ref names by digest. It is
// nil if it lately did, to them or to somebody who showed no credential; otherwise the registry is asked, and the error is its answer.
func (r *Resolver) Admit(ctx context.Context, ref string) error {
	spec, err := reference.Parse(ref)
	if err != nil {
		return wrap("read", ref, err)
	}
	if r.reg.grants.has(spec.Locator, nobody, spec.Digest()) {
		return nil
	}
	e, err := r.reg.endpoint(endpointKey{host: spec.Hostname(), insecure: r.o.Insecure})
	if err != nil {
		return wrap("read", ref, err)
	}
	if _, asks := r.reg.challenge(e.host); asks {
		// An error here will come again below, with more about it.
		if cred, err := r.credential(ctx, e.host, nil); err == nil && r.reg.grants.has(spec.Locator, cred.identity, spec.Digest()) {
			return nil
		}
	}
	if _, err := r.Find(ctx, ref); err != nil {
		return err
	}
	r.Granted(ref, spec.Digest())
	return nil
}

// Granted notes that the repository of ref gave this resolver some content just now, and tells whether it would have given it to
// anybody, as no credential was shown.
func (r *Resolver) Granted(ref string, content ...digest.Digest) (open bool) {
	spec, err := reference.Parse(ref)
	if err != nil {
		return false
	}
	r.mu.Lock()
	identity, shown := r.shown, r.showed
	r.mu.Unlock()
	if !shown {
		identity = nobody
	}
	r.reg.grants.add(spec.Locator, identity, content...)
	return !shown
}

// Open tells whether the registry gives what ref names to somebody without credentials. It asks.
func (r *Registry) Open(ctx context.Context, ref string) bool {
	anybody := r.Resolver(ResolverOptions{})
	if _, _, err := anybody.Resolve(ctx, ref); err != nil {
		return false
	}
	if spec, err := reference.Parse(ref); err == nil && spec.Digest() != "" {
		r.grants.add(spec.Locator, nobody, spec.Digest())
	}
	return true
}

// show notes the credential that is put on a request.
func (r *Resolver) show(c *credential) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shown, r.showed = c.identity, true
}

// signsAsNobody tells whether a client's key is the one that all clients without an account sign with: it is derived of the salt alone.
func signsAsNobody(salt []byte, key *[32]byte) bool {
	none := ed25519.NewKeyFromSeed(hmac.New(sha256.New, salt).Sum(nil)).Public().(ed25519.PublicKey)
	return none.Equal(ed25519.PublicKey(key[:]))
}
