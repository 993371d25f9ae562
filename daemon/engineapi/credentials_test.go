package engineapi

import (
	"encoding/base64"
	"testing"

	pb "github.com/moby/buildkit/session/auth"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestAccountsOfARequest(t *testing.T) {
	t.Parallel()
	text := `{"https://index.docker.io/v1/":{"username":"u","password":"p"},"h.example:5000":{"auth":"` +
		base64.StdEncoding.EncodeToString([]byte("a:b:c")) + `"},"https://old.example/v2/":{"identitytoken":"id"},"t.example":{"registrytoken":"x"},"empty.example":{}}`
	for _, enc := range []*base64.Encoding{base64.URLEncoding, base64.RawURLEncoding, base64.StdEncoding} {
		s := &accountService{accounts: parseAccounts(enc.EncodeToString([]byte(text)))}
		for _, test := range []struct {
			host, user, secret string
			code               codes.Code
		}{
			{"registry-1.docker.io", "u", "p", codes.OK},
			{"docker.io", "u", "p", codes.OK},
			{"h.example:5000", "a", "b:c", codes.OK},
			{"old.example", "", "id", codes.OK},
			{"t.example", "", "", codes.FailedPrecondition},
			{"empty.example", "", "", codes.Unimplemented},
			{"h.example", "", "", codes.Unimplemented},
		} {
			got, err := s.Credentials(t.Context(), &pb.CredentialsRequest{Host: test.host})
			if status.Code(err) != test.code || got.GetUsername() != test.user || got.GetSecret() != test.secret {
				t.Errorf("%s: %v, %v", test.host, got, err)
			}
		}
	}
	for _, header := range []string{"", "bnVsbA==", "e30=", "!", base64.URLEncoding.EncodeToString([]byte("[]"))} {
		if acc := parseAccounts(header); acc != nil {
			t.Errorf("%q: %v", header, acc)
		}
	}
}

func FuzzAccounts(f *testing.F) {
	f.Add("bnVsbA==")
	f.Add(base64.URLEncoding.EncodeToString([]byte(`{"a":{"auth":"YTpi"}}`)))
	f.Add(base64.StdEncoding.EncodeToString([]byte(`{"https://index.docker.io/v1/":{"username":"u"}}`)))
	f.Fuzz(func(t *testing.T, header string) {
		acc := parseAccounts(header)
		if len(acc) > maxCredentials {
			t.Errorf("%d accounts", len(acc))
		}
		for host, c := range acc {
			if c.Username+c.Password+c.IdentityToken+c.RegistryToken == "" {
				t.Errorf("nothing for %q", host)
			}
		}
	})
}
