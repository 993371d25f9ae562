package guard

import "regexp"

// credentials are credentials that are known by how they look.
var credentials = []struct {
	kind  string
	shape *regexp.Regexp
}{
	{"an AWS access key", regexp.MustCompile(`(?:^|[^A-Za-z0-9])(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?:$|[^A-Za-z0-9])`)},
	{"a GitHub token", regexp.MustCompile(`(?:^|[^A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,})`)},
	{"a GitLab token", regexp.MustCompile(`(?:^|[^A-Za-z0-9])gl(?:pat|dt|rt|cbt|ptt|ft|soat)-[A-Za-z0-9_-]{20,}`)},
	{"an npm token", regexp.MustCompile(`(?:^|[^A-Za-z0-9])npm_[A-Za-z0-9]{36}`)},
	{"a PyPI token", regexp.MustCompile(`(?:^|[^A-Za-z0-9])pypi-AgE[A-Za-z0-9_-]{40,}`)},
	{"a Docker token", regexp.MustCompile(`(?:^|[^A-Za-z0-9])dckr_(?:pat|oat)_[A-Za-z0-9_-]{20,}`)},
	{"a Slack token", regexp.MustCompile(`(?:^|[^A-Za-z0-9])xox[abeprs]-[A-Za-z0-9-]{10,}`)},
	{"a Google API key", regexp.MustCompile(`(?:^|[^A-Za-z0-9])AIza[A-Za-z0-9_-]{35}(?:$|[^A-Za-z0-9_-])`)},
	{"a Stripe key", regexp.MustCompile(`(?:^|[^A-Za-z0-9])[rs]k_live_[A-Za-z0-9]{16,}`)},
	{"a JSON web token", regexp.MustCompile(`(?:^|[^A-Za-z0-9])eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{16,}`)},
	{"a private key", regexp.MustCompile(`-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----`)},
}

// maxLooked bounds how much of a text is looked at, in bytes.
const maxLooked = 64 << 10

// LooksLike tells what kind of credential is in a text by how it looks, with its article; "" if there is none.
func LooksLike(text string) string {
	text = text[:min(len(text), maxLooked)]
	for _, s := range credentials {
		if s.shape.MatchString(text) {
			return s.kind
		}
	}
	return ""
}
