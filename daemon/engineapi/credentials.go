package engineapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"

	pb "github.com/moby/buildkit/session/auth"
	"github.com/moby/moby/api/types/registry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Docker Hub's accounts are kept under the first of these names, and asked for by the others.
const (
	hubKey  = "https://index.docker.io/v1/"
	hubHost = "registry-1.docker.io"
)

// maxCredentials bounds how many registries a request may bring accounts for.
const maxCredentials = 1000

// accounts are registry accounts by host.
type accounts map[string]registry.AuthConfig

// parseAccounts reads X-Registry-Config: URL-safe base64 of a JSON object. As in docker, what cannot be read is no account: the
// build may well need none.
func parseAccounts(header string) accounts {
	b, err := decodeBase64(header)
	if err != nil {
		return nil
	}
	var all map[string]registry.AuthConfig
	if json.Unmarshal(b, &all) != nil || len(all) > maxCredentials {
		return nil
	}
	out := accounts{}
	for key, c := range all {
		if c = normalise(c); c != (registry.AuthConfig{}) {
			out[hostOf(key)] = c
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// decodeBase64 takes both alphabets, padded or not: clients differ.
func decodeBase64(s string) ([]byte, error) {
	s = strings.TrimRight(strings.TrimSpace(s), "=")
	s = strings.NewReplacer("+", "-", "/", "_").Replace(s)
	return base64.RawURLEncoding.DecodeString(s)
}

// normalise spells out a user name and password that are given as one. What is no part of an account is dropped.
func normalise(c registry.AuthConfig) registry.AuthConfig {
	if c.Auth != "" && c.Username == "" && c.Password == "" {
		if b, err := base64.StdEncoding.DecodeString(c.Auth); err == nil {
			c.Username, c.Password, _ = strings.Cut(string(b), ":")
		}
	}
	return registry.AuthConfig{Username: c.Username, Password: c.Password, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken}
}

// hostOf is the registry that a key of the map is for: a host, or one of the URLs that docker once kept accounts under.
func hostOf(key string) string {
	if key == hubKey {
		return hubHost
	}
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	host, _, _ := strings.Cut(key, "/")
	switch host {
	case "docker.io", "index.docker.io":
		return hubHost
	}
	return host
}

// accountService answers for the accounts of one request, as a session of its client would. For other registries it says that it
// cannot, so that another session is asked.
type accountService struct {
	pb.UnimplementedAuthServer
	accounts accounts
}

func (s *accountService) Register(srv *grpc.Server) { pb.RegisterAuthServer(srv, s) }

// Credentials returns the account for a host. A secret without a user name is an identity token.
func (s *accountService) Credentials(_ context.Context, r *pb.CredentialsRequest) (*pb.CredentialsResponse, error) {
	c, ok := s.accounts[hostOf(r.GetHost())]
	switch {
	case !ok:
		return nil, status.Errorf(codes.Unimplemented, "no account for %s in the request", r.GetHost())
	case c.IdentityToken != "":
		return &pb.CredentialsResponse{Secret: c.IdentityToken}, nil
	case c.RegistryToken != "":
		return nil, status.Errorf(codes.FailedPrecondition, "the request has a registry token for %s, and those are not taken: send a user name and password, or an identity token", r.GetHost())
	}
	return &pb.CredentialsResponse{Username: c.Username, Secret: c.Password}, nil
}
