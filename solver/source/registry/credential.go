package registry

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	pb "github.com/moby/buildkit/session/auth"
	"github.com/slipwaybuild/slipway/session"
	"golang.org/x/crypto/nacl/sign"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// clientTimeout bounds one question to a client, who may have to ask a person or a credential helper.
const clientTimeout = time.Minute

// anonymous is the identity of who shows no credential.
const anonymous = "anonymous"

// credential is what one client has for one host.
type credential struct {
	// session is the client's; "" for nobody.
	session string
	// identity is equal for equal credentials, and only for those.
	identity string
	// caller is the client, if it fetches tokens itself.
	caller session.Caller
	// user and secret are set if the client told them, which it does only if it cannot fetch tokens.
	user, secret string
}

// errNobody says that no further session has a credential to offer.
var errNobody = errors.New("no further session")

// credential returns what the first of the sessions that is not in skip has for host. errNobody if all are.
func (r *Resolver) credential(ctx context.Context, host string, skip map[string]bool) (*credential, error) {
	var g *session.Group
	if r.o.Sessions != nil {
		g = r.o.Sessions()
	}
	var found *credential
	var failed error
	err := g.Any(ctx, func(ctx context.Context, c session.Caller) (err error) {
		if skip[c.ID()] {
			return session.ErrNotSupported
		}
		found, err = r.identify(ctx, host, c)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if !cannot(err) {
			failed = err
		}
		// Whatever is wrong with this client, the next may be well.
		return fmt.Errorf("%w: %w", session.ErrNotSupported, err)
	})
	switch {
	case err == nil:
		return found, nil
	case failed != nil || !errors.Is(err, session.ErrNoSession):
		return nil, fmt.Errorf("ask the client for its credentials for %s: %w", host, cmp.Or(failed, err))
	case len(skip) > 0:
		return nil, errNobody
	}
	return &credential{identity: anonymous}, nil
}

// identify finds out what a client has for host, once per resolver.
func (r *Resolver) identify(ctx context.Context, host string, c session.Caller) (*credential, error) {
	key := host + " " + c.ID()
	r.mu.Lock()
	known := r.known[key]
	r.mu.Unlock()
	if known != nil {
		return known, nil
	}
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	client := pb.NewAuthClient(c.Conn())
	cred := &credential{session: c.ID()}
	signer, err := r.authority(ctx, client, host)
	switch {
	case err != nil:
		return nil, err
	case signer != nil && signsAsNobody(r.reg.salt, signer):
		// Anybody can sign so, also a client that has an account for some repositories of the host only. What it fetches is its own.
		cred.caller, cred.identity = c, anonymous+" "+c.ID()
	case signer != nil:
		cred.caller, cred.identity = c, "signer "+hex.EncodeToString(signer[:])
	default:
		if cred.user, cred.secret, err = secret(ctx, client, host); err != nil {
			return nil, err
		}
		cred.identity = r.hash(host, cred.user, cred.secret)
	}
	r.learned(host, cred.secret)
	r.mu.Lock()
	r.known[key] = cred
	r.mu.Unlock()
	return cred, nil
}

// learned tells those whose sessions are used of a secret for host.
func (r *Resolver) learned(host, value string) {
	if r.o.Sessions != nil && value != "" {
		r.o.Sessions().Learned("credentials for "+host, []byte(value))
	}
}

// authority returns the key by which a client signs for its credential for host, having seen it sign; nil if it does not.
func (r *Resolver) authority(ctx context.Context, client pb.AuthClient, host string) (*[32]byte, error) {
	resp, err := client.GetTokenAuthority(ctx, &pb.GetTokenAuthorityRequest{Host: host, Salt: r.reg.salt})
	if cannot(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(resp.PublicKey) != 32 {
		return nil, fmt.Errorf("the client's key has %d bytes instead of 32", len(resp.PublicKey))
	}
	// A key is no secret. Only who can sign with it owns the credential.
	payload := make([]byte, 32)
	if _, err := rand.Read(payload); err != nil {
		return nil, err
	}
	signed, err := client.VerifyTokenAuthority(ctx, &pb.VerifyTokenAuthorityRequest{Host: host, Salt: r.reg.salt, Payload: payload})
	if cannot(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	key := [32]byte(resp.PublicKey)
	got, ok := sign.Open(nil, signed.Signed, &key)
	if !ok || subtle.ConstantTimeCompare(got, payload) != 1 {
		return nil, errors.New("the client could not sign with its own key")
	}
	return &key, nil
}

// cannot tells whether a client does not fetch tokens itself, by an old version or by choice.
func cannot(err error) bool {
	code := status.Code(err)
	return code == codes.Unimplemented || code == codes.Unavailable
}

func secret(ctx context.Context, client pb.AuthClient, host string) (user, secret string, err error) {
	resp, err := client.Credentials(ctx, &pb.CredentialsRequest{Host: host})
	if err != nil {
		return "", "", err
	}
	return resp.Username, resp.Secret, nil
}

// basic returns user and password of a credential, asking the client if it did not tell them yet: for a host that knows no tokens
// there is no other way.
func (c *credential) basic(ctx context.Context, host string) (user, password string, err error) {
	if c.caller == nil {
		return c.user, c.secret, nil
	}
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	return secret(ctx, pb.NewAuthClient(c.caller.Conn()), host)
}

// hash names a credential without telling it.
func (r *Resolver) hash(host, user, secret string) string {
	if user == "" && secret == "" {
		return anonymous
	}
	h := hmac.New(sha256.New, r.reg.salt)
	for _, s := range []string{host, user, secret} {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return "secret " + hex.EncodeToString(h.Sum(nil))
}
