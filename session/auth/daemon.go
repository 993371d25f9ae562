package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	pb "github.com/moby/buildkit/session/auth"

	"github.com/slipwaybuild/slipway/session"
)

// Timeout bounds each question to a client. It is long because a person may have to unlock a keychain.
const Timeout = 60 * time.Second

// TokenRequest says which token is wanted.
type TokenRequest struct {
	// Host is the registry, "registry-1.docker.io" for Docker Hub.
	Host string
	// Realm is the URL of the token server, Service what it calls the registry; both are of the registry's challenge.
	Realm, Service string
	// Scopes are like "repository:library/alpine:pull".
	Scopes []string
	// ClientID names the program that asks; "" is the client's own choice.
	ClientID string
}

// Token is a bearer token.
type Token struct {
	Value string
	// ExpiresIn counts from IssuedAt, or from now if that is zero.
	ExpiresIn time.Duration
	IssuedAt  time.Time
}

// Credentials asks for the account at a host. Both results are empty for none. A secret without a user name is an identity token.
// The error wraps session.ErrNoSession if no client can answer; to go on anonymously is then the caller's decision.
func Credentials(ctx context.Context, g *session.Group, host string) (username, secret string, err error) {
	err = ask(ctx, g, func(ctx context.Context, c pb.AuthClient) error {
		resp, err := c.Credentials(ctx, &pb.CredentialsRequest{Host: host})
		username, secret = resp.GetUsername(), resp.GetSecret()
		return err
	})
	if err != nil {
		return "", "", fmt.Errorf("credentials for %s: %w", host, err)
	}
	return username, secret, nil
}

// FetchToken has a client fetch a token. Errors are as for Credentials.
func FetchToken(ctx context.Context, g *session.Group, req TokenRequest) (Token, error) {
	var t Token
	err := ask(ctx, g, func(ctx context.Context, c pb.AuthClient) error {
		resp, err := c.FetchToken(ctx, &pb.FetchTokenRequest{
			ClientID: req.ClientID, Host: req.Host, Realm: req.Realm, Service: req.Service, Scopes: req.Scopes,
		})
		if err != nil {
			return err
		}
		t = Token{Value: resp.GetToken(), ExpiresIn: time.Duration(resp.GetExpiresIn()) * time.Second}
		if at := resp.GetIssuedAt(); at != 0 {
			t.IssuedAt = time.Unix(at, 0)
		}
		return nil
	})
	if err != nil {
		return Token{}, fmt.Errorf("token for %s: %w", req.Host, err)
	}
	return t, nil
}

// TokenAuthority returns the public key with which a client signs for its account at the host. salt is random, at least 16 bytes, and the
// daemon's own: with another salt the key is another. Errors are as for Credentials.
func TokenAuthority(ctx context.Context, g *session.Group, host string, salt []byte) (ed25519.PublicKey, error) {
	var key ed25519.PublicKey
	err := ask(ctx, g, func(ctx context.Context, c pb.AuthClient) error {
		resp, err := c.GetTokenAuthority(ctx, &pb.GetTokenAuthorityRequest{Host: host, Salt: salt})
		if err != nil {
			return err
		}
		if n := len(resp.GetPublicKey()); n != ed25519.PublicKeySize {
			return fmt.Errorf("the client's public key has %d bytes, not %d", n, ed25519.PublicKeySize)
		}
		key = resp.GetPublicKey()
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("token authority for %s: %w", host, err)
	}
	return key, nil
}

// VerifyAuthority tells whether a client has the account that the key of an earlier TokenAuthority, with the same salt, stands for.
// Any client of the group may prove it. Errors are as for Credentials.
func VerifyAuthority(ctx context.Context, g *session.Group, host string, salt []byte, key ed25519.PublicKey) (bool, error) {
	others := false // whether a client answered that has another account
	err := ask(ctx, g, func(ctx context.Context, c pb.AuthClient) error {
		payload := make([]byte, 32)
		_, _ = rand.Read(payload) // never fails: crypto/rand ends the program rather
		resp, err := c.VerifyTokenAuthority(ctx, &pb.VerifyTokenAuthorityRequest{Host: host, Salt: salt, Payload: payload})
		if err != nil {
			return err
		}
		if !signed(resp.GetSigned(), payload, key) {
			others = true
			return fmt.Errorf("%w: the session has another account", session.ErrNotSupported)
		}
		return nil
	})
	switch {
	case err == nil:
		return true, nil
	case others && errors.Is(err, session.ErrNoSession):
		return false, nil
	}
	return false, fmt.Errorf("verify token authority for %s: %w", host, err)
}

// signed checks a signature that is followed by what was signed, which is the layout of NaCl's crypto_sign.
func signed(msg, payload []byte, key ed25519.PublicKey) bool {
	if len(key) != ed25519.PublicKeySize || len(msg) != ed25519.SignatureSize+len(payload) {
		return false
	}
	sig, said := msg[:ed25519.SignatureSize], msg[ed25519.SignatureSize:]
	return subtle.ConstantTimeCompare(said, payload) == 1 && ed25519.Verify(key, payload, sig)
}

func ask(ctx context.Context, g *session.Group, f func(context.Context, pb.AuthClient) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, Timeout, fmt.Errorf("no answer from the client within %s: %w", Timeout, context.DeadlineExceeded))
	defer cancel()
	return g.Any(ctx, func(ctx context.Context, c session.Caller) error {
		return f(ctx, pb.NewAuthClient(c.Conn()))
	})
}
