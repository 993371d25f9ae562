package registrytest

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	pb "github.com/moby/buildkit/session/auth"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Client is the auth service of a build's client, as an attachable of a session, with one account. It counts what it is asked for.
type Client struct {
	pb.UnimplementedAuthServer

	User, Password string
	// NoTokens makes it refuse to fetch tokens, as old clients do.
	NoTokens bool
	// Trouble is the answer to whatever it is asked, if it is set.
	Trouble error
	// HTTP fetches tokens.
	HTTP *http.Client

	// Credentials were asked for, Tokens were fetched, so often.
	CredentialsAsked, TokensFetched atomic.Int64
}

// Register implements session.Attachable.
func (c *Client) Register(s *grpc.Server) { pb.RegisterAuthServer(s, c) }

// Credentials tells the password.
func (c *Client) Credentials(context.Context, *pb.CredentialsRequest) (*pb.CredentialsResponse, error) {
	c.CredentialsAsked.Add(1)
	return &pb.CredentialsResponse{Username: c.User, Secret: c.Password}, nil
}

// FetchToken goes to the token server.
func (c *Client) FetchToken(ctx context.Context, r *pb.FetchTokenRequest) (*pb.FetchTokenResponse, error) {
	c.TokensFetched.Add(1)
	q := url.Values{"service": {r.Service}, "scope": r.Scopes}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.Realm+"?"+q.Encode(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "client")
	if c.User != "" {
		req.SetBasicAuth(c.User, c.Password)
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, status.Errorf(codes.Unauthenticated, "token server at %s answered %s", strings.SplitN(r.Realm, "?", 2)[0], resp.Status)
	}
	var t struct {
		Token     string `json:"token"`
		ExpiresIn int64  `json:"expires_in"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&t); err != nil {
		return nil, fmt.Errorf("decode token: %w", err)
	}
	return &pb.FetchTokenResponse{Token: t.Token, ExpiresIn: t.ExpiresIn, IssuedAt: time.Now().Unix()}, nil
}

func (c *Client) key(salt []byte) ed25519.PrivateKey {
	h := hmac.New(sha256.New, salt)
	_, _ = h.Write([]byte(c.User + " " + c.Password)) // never fails
	return ed25519.NewKeyFromSeed(h.Sum(nil))
}

// GetTokenAuthority tells the key that stands for the account.
func (c *Client) GetTokenAuthority(_ context.Context, r *pb.GetTokenAuthorityRequest) (*pb.GetTokenAuthorityResponse, error) {
	if c.Trouble != nil {
		return nil, c.Trouble
	}
	if c.NoTokens {
		return nil, status.Error(codes.Unavailable, "client side tokens disabled")
	}
	return &pb.GetTokenAuthorityResponse{PublicKey: c.key(r.Salt).Public().(ed25519.PublicKey)}, nil
}

// VerifyTokenAuthority signs with it.
func (c *Client) VerifyTokenAuthority(_ context.Context, r *pb.VerifyTokenAuthorityRequest) (*pb.VerifyTokenAuthorityResponse, error) {
	return &pb.VerifyTokenAuthorityResponse{Signed: append(ed25519.Sign(c.key(r.Salt), r.Payload), r.Payload...)}, nil
}
