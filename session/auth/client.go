package auth

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	pb "github.com/moby/buildkit/session/auth"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/slipwaybuild/slipway/session"
)

// maxPayload bounds what a daemon may have signed, in bytes. Daemons use 32.
const maxPayload = 4 << 10

// Options configure the client's end. The zero value does what docker does.
type Options struct {
	// ConfigFile loads docker's configuration. It is called once, when credentials are first asked for. nil loads config.json of docker's
	// configuration directory (DOCKER_CONFIG, or ~/.docker).
	ConfigFile func() (*configfile.ConfigFile, error)
	// ScopedDir holds configurations for single repositories, as buildx keeps them: HOST/REPOSITORY/config.json below it. "" is the
	// directory config of buildx's own (BUILDX_CONFIG, or buildx in docker's configuration directory).
	ScopedDir string
	// SeedDir is where the secret seeds of token authorities are kept, in docker's format; "" is docker's configuration directory.
	SeedDir string
	// HelperTimeout bounds one run of a credential helper, 30s by default.
	HelperTimeout time.Duration
	// HTTPClient talks to registries and token servers. nil is a client of our own, with the proxies of the environment.
	HTTPClient *http.Client
	// Logger hears which passwords were asked for and whether they were sent. nil is silence.
	Logger *slog.Logger
}

// New returns the service that answers for the client's registry accounts.
func New(o Options) session.Attachable {
	if o.ConfigFile == nil {
		o.ConfigFile = loadConfig
	}
	if o.ScopedDir == "" {
		o.ScopedDir = filepath.Join(cmp.Or(os.Getenv("BUILDX_CONFIG"), filepath.Join(config.Dir(), "buildx")), "config")
	}
	if o.SeedDir == "" {
		o.SeedDir = config.Dir()
	}
	if o.HelperTimeout <= 0 {
		o.HelperTimeout = 30 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &service{
		accounts: newAccounts(o.ConfigFile, o.ScopedDir, o.HelperTimeout),
		tokens:   newTokenClient(o.HTTPClient),
		seeds:    seeds{dir: o.SeedDir},
		log:      o.Logger,
	}
}

type service struct {
	accounts *accounts
	tokens   *tokenClient
	seeds    seeds
	log      *slog.Logger
}

func (s *service) Register(srv *grpc.Server) { pb.RegisterAuthServer(srv, s) }

// Credentials answers with the password only if the host can do with nothing less; see the package comment.
func (s *service) Credentials(ctx context.Context, req *pb.CredentialsRequest) (*pb.CredentialsResponse, error) {
	host := req.GetHost()
	acc, err := s.accounts.lookup(ctx, host)
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	if acc.secret == "" {
		return &pb.CredentialsResponse{}, nil
	}
	if s.tokens.usesTokens(ctx, host) {
		s.log.Info("password not sent: the registry takes tokens", "registry", host)
		return &pb.CredentialsResponse{}, nil
	}
	s.log.Info("password sent to the daemon: the registry uses basic authentication", "registry", host)
	return &pb.CredentialsResponse{Username: acc.username, Secret: acc.secret}, nil
}

// FetchToken gets a token with the client's account, or as anybody if there is none.
func (s *service) FetchToken(ctx context.Context, req *pb.FetchTokenRequest) (*pb.FetchTokenResponse, error) {
	acc, err := s.accounts.lookup(ctx, req.GetHost(), req.GetScopes()...)
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	if acc.registryToken != "" {
		return &pb.FetchTokenResponse{Token: acc.registryToken, ExpiresIn: defaultExpiry}, nil
	}
	t, err := s.tokens.fetch(ctx, acc, TokenRequest{
		Host: req.GetHost(), Realm: req.GetRealm(), Service: req.GetService(), Scopes: req.GetScopes(), ClientID: req.GetClientID(),
	})
	if err != nil {
		return nil, err
	}
	resp := &pb.FetchTokenResponse{Token: t.Value, ExpiresIn: int64(t.ExpiresIn / time.Second)}
	if !t.IssuedAt.IsZero() {
		resp.IssuedAt = t.IssuedAt.Unix()
	}
	return resp, nil
}

// GetTokenAuthority returns the public key for the account at the host.
func (s *service) GetTokenAuthority(ctx context.Context, req *pb.GetTokenAuthorityRequest) (*pb.GetTokenAuthorityResponse, error) {
	key, err := s.authority(ctx, req.GetHost(), req.GetSalt())
	if err != nil {
		return nil, err
	}
	return &pb.GetTokenAuthorityResponse{PublicKey: key.Public().(ed25519.PublicKey)}, nil
}

// VerifyTokenAuthority signs with the key for the account at the host.
func (s *service) VerifyTokenAuthority(ctx context.Context, req *pb.VerifyTokenAuthorityRequest) (*pb.VerifyTokenAuthorityResponse, error) {
	payload := req.GetPayload()
	if len(payload) > maxPayload {
		return nil, status.Errorf(codes.InvalidArgument, "payload of %d bytes, at most %d are signed", len(payload), maxPayload)
	}
	key, err := s.authority(ctx, req.GetHost(), req.GetSalt())
	if err != nil {
		return nil, err
	}
	return &pb.VerifyTokenAuthorityResponse{Signed: append(ed25519.Sign(key, payload), payload...)}, nil
}

// authority derives the key. Without any account the seed is left out, so that all who are anonymous are one. An account for some repositories
// is one too, or daemons would share its tokens with everybody.
func (s *service) authority(ctx context.Context, host string, salt []byte) (ed25519.PrivateKey, error) {
	acc, err := s.accounts.lookup(ctx, host)
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	var seed []byte
	if acc.secret != "" || acc.registryToken != "" || s.accounts.hasScoped(host) {
		if seed, err = s.seeds.get(host); err != nil {
			return nil, status.Errorf(codes.Internal, "token authority for %s: %v", host, err)
		}
	}
	return deriveKey(salt, seed), nil
}
