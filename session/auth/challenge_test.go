package auth

import "testing"

func TestParseChallenges(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		headers []string
		want    challenge
	}{
		{nil, challenge{}},
		{[]string{`Bearer realm="https://a/token",service="x"`}, challenge{"bearer", "https://a/token"}},
		{[]string{`bearer service="x, y", realm=https://a/t`}, challenge{"bearer", "https://a/t"}},
		{[]string{`Basic realm="r"`}, challenge{scheme: "basic"}},
		{[]string{`Basic realm="r"`, `Bearer realm="https://a/t"`}, challenge{"bearer", "https://a/t"}},
		{[]string{`Digest x`}, challenge{}},
		{[]string{`Bearer realm="unterminated`}, challenge{"bearer", "unterminated"}},
	} {
		if got := parseChallenges(tc.headers); got != tc.want {
			t.Errorf("%q: %+v, want %+v", tc.headers, got, tc.want)
		}
	}
}

func FuzzParseChallenges(f *testing.F) {
	for _, seed := range []string{`Bearer realm="a",service="b"`, `Basic realm=x`, `Bearer a=,b="`, `=`, `bearer ,,,=="`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, h string) {
		if c := parseChallenges([]string{h}); c.realm != "" && c.scheme != "bearer" {
			t.Errorf("%+v", c)
		}
	})
}
