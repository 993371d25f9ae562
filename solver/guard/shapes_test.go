package guard

import (
	"strings"
	"testing"
)

func TestLooksLike(t *testing.T) {
	// Put together here, so that no scanner of sources takes them for real ones.
	for text, want := range map[string]string{
		"AKIA" + "IOSFODNN7EXAMPLE":                                             "an AWS access key",
		"id=ASIA" + "IOSFODNN7EXAMPLE;":                                         "an AWS access key",
		"ghp_" + strings.Repeat("a1B2", 9):                                      "a GitHub token",
		"https://x:gho_" + strings.Repeat("a1B2", 9):                            "a GitHub token",
		"github_pat_" + strings.Repeat("a1B2_", 10):                             "a GitHub token",
		"glpat-" + strings.Repeat("aB1-", 5):                                    "a GitLab token",
		"npm_" + strings.Repeat("a1B2", 9):                                      "an npm token",
		"xoxb-" + strings.Repeat("12-", 5):                                      "a Slack token",
		"dckr_pat_" + strings.Repeat("aB1_", 6):                                 "a Docker token",
		"AIza" + strings.Repeat("aB1_-", 7):                                     "a Google API key",
		"sk_live_" + strings.Repeat("aB1c", 5):                                  "a Stripe key",
		"-----BEGIN RSA PRIVATE KEY-----\nMII":                                  "a private key",
		"-----BEGIN " + "PRIVATE KEY-----":                                      "a private key",
		"-----BEGIN PGP PRIVATE KEY BLOCK-----":                                 "a private key",
		"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0." + strings.Repeat("aB1_", 6): "a JSON web token",
		"": "", "1.2.3": "", "true": "", "sha256:" + strings.Repeat("0a", 32): "", "MAKIA" + "IOSFODNN7EXAMPLE": "",
		"-----BEGIN CERTIFICATE-----": "", "-----BEGIN PUBLIC KEY-----": "", "https://example.com/x?y=z": "",
		"E3FF2839C048B25C084DEBE9B26995E310250568": "", "npm_config_registry": "", "ghp_short": "",
	} {
		if got := LooksLike(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
