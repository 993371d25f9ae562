package guard

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const token = "tok3n-Of/the+build=é"

// key has the shape of a private key.
const key = `-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACDFp4pQY8xvKlbwHq2Z1mJYQ3wUeIhXzWcSfw5fZyUqWgAAAJgqkq1HKpKt
RwAAAAtzc2gtZWQyNTUxOQAAACDFp4pQY8xvKlbwHq2Z1mJYQ3wUeIhXzWcSfw5fZyUqWg
-----END OPENSSH PRIVATE KEY-----
`

func values(pairs ...string) *Values {
	v := &Values{}
	for i := 0; i < len(pairs); i += 2 {
		v.Learn(pairs[i], []byte(pairs[i+1]))
	}
	return v
}

// shapes are what programs make of a value.
func shapes(v string) map[string]string {
	b := []byte(v)
	out := map[string]string{
		"raw": v, "hex": hex.EncodeToString(b), "HEX": strings.ToUpper(hex.EncodeToString(b)),
		"base64": base64.StdEncoding.EncodeToString(b), "base64url": base64.URLEncoding.EncodeToString(b),
		"query": url.QueryEscape(v), "path": url.PathEscape(v), "quoted": fmt.Sprintf("%q", v), "od": fmt.Sprintf("% x", b), "OD": fmt.Sprintf("% X", b),
	}
	for _, before := range []string{"u", "us", "use", "user:"} {
		out["base64 after "+before] = base64.StdEncoding.EncodeToString([]byte(before + v + "\n"))
		out["base64url after "+before] = base64.URLEncoding.EncodeToString([]byte(before + v + "@host"))
	}
	return out
}

func TestFindsEveryForm(t *testing.T) {
	for _, v := range []string{token, "12345678", "a b c d e f'\"$x", key} {
		m := values("id", v).Matcher()
		for name, text := range shapes(strings.TrimSpace(v)) {
			for _, around := range []string{"", "x", "some text in front ", strings.Repeat("-", 1000)} {
				data := []byte(around + text + around)
				if got := m.Find(data, nil); got != "id" {
					t.Errorf("%s of %q behind %d bytes: found %q", name, v, len(around), got)
				}
				if got := m.Mask(data); bytes.Contains(got, []byte(text)) || !bytes.Contains(got, []byte(Mask)) {
					t.Errorf("%s of %q is masked as %q", name, v, got)
				}
			}
		}
	}
}

func TestBrokenIntoLines(t *testing.T) {
	long := strings.Repeat("0123456789abcdefghijklmnopqrstuvwxyz", 5)
	m := values("id", long).Matcher()
	encoded := base64.StdEncoding.EncodeToString([]byte(long))
	for _, width := range []int{64, 76} {
		var lines []string
		for rest := encoded; rest != ""; {
			n := min(width, len(rest))
			lines, rest = append(lines, rest[:n]), rest[n:]
		}
		got := m.MaskString(strings.Join(lines, "\n"))
		for _, l := range lines[:len(lines)-1] {
			if strings.Contains(got, l) {
				t.Errorf("a line of %d is left: %s", width, got)
			}
		}
	}
}

func TestLinesOfKeys(t *testing.T) {
	m := values("key", key).Matcher()
	for i, l := range strings.Split(strings.TrimSpace(key), "\n") {
		armor := strings.HasPrefix(l, "-----")
		if got := m.Find([]byte("x"+l+"y"), nil); (got == "key") == armor {
			t.Errorf("line %d: found %q", i, got)
		}
		if got := m.MaskString(l); (got == Mask) == armor {
			t.Errorf("line %d is masked as %q", i, got)
		}
	}
}

func TestPartsThatAreSecret(t *testing.T) {
	for value, want := range map[string]string{
		"Authorization: Bearer ghp_16C7e42F292c6912E7":                                                                      "ghp_16C7e42F292c6912E7",
		"//registry.example.com/:_authToken=npm_A1b2C3d4E5f6G7h8":                                                           "npm_A1b2C3d4E5f6G7h8",
		"https://user:s3cretPassw0rdIsHere@example.com/x":                                                                   "s3cretPassw0rdIsHere",
		"machine example.com login me password Zx81spectrum16K":                                                             "Zx81spectrum16K1"[:15],
		"{\"auths\": {\"https://index.docker.io/v1/\": {\"auth\": \"dXNlcjpwYXNzd29yZDE=\"}}}":                              "dXNlcjpwYXNzd29yZDE=",
		"AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE\nAWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\nREGION=eu": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
	} {
		got := values("id", value).Matcher().Find([]byte("token: "+want+"\n"), nil)
		if found := got == "id"; found != (len(want) >= minPart) {
			t.Errorf("%q in %q: found %q", want, value, got)
		}
	}
	plain := values("id", "{\"auths\": {\"https://index.docker.io/v1/\": {\"auth\": \"dXNlcjpwYXNzd29yZDE=\"}}}\nexport SOMETHING=/usr/local/lib/python3.11\n").Matcher()
	for _, harmless := range []string{"https://index.docker.io/v1/", "/usr/local/lib/python3.11", "-----BEGIN PRIVATE KEY-----"} {
		if got := plain.Find([]byte(harmless), nil); got != "" {
			t.Errorf("%q is taken for a secret", harmless)
		}
	}
}

func TestShortValuesAreMaskedInLogsAlone(t *testing.T) {
	v := &Values{}
	var heard []int
	v.Heard(func(_ string, n int) { heard = append(heard, n) })
	v.Learn("pin", []byte("1234567\n"))
	v.Learn("pin", []byte("1234567"))
	v.Learn("empty", []byte(" \n"))
	m := v.Matcher()
	if m.Find([]byte("x1234567x"), nil) != "" || m.Searches(nil) || m.MaskString("say 1234567") != "say 1234567" {
		t.Error("a short value is found")
	}
	if got := masked(v, "x123", "4567x"); got != "x***x" {
		t.Errorf("the log says %q", got)
	}
	if fmt.Sprint(heard) != "[7]" {
		t.Errorf("heard %v", heard)
	}
}

func TestTokensAreMaskedAlone(t *testing.T) {
	v := &Values{}
	v.LearnToken("token", []byte("bearer-of-minutes"))
	m := v.Matcher()
	if m.Searches(nil) || m.Find([]byte("bearer-of-minutes"), nil) != "" || m.MaskString("a bearer-of-minutes") != "a ***" {
		t.Error("a token is not masked alone")
	}
	v.Learn("token", []byte("bearer-of-minutes"))
	if v.Matcher().Find([]byte("bearer-of-minutes"), nil) != "token" {
		t.Error("a secret that is a token as well is not found")
	}
}

func TestAllowed(t *testing.T) {
	v := values("a", "first-value", "b", "second-value")
	allowed := func(id string) bool { return id == "a" }
	if got := v.Matcher().Find([]byte("first-value second-value"), allowed); got != "b" {
		t.Errorf("found %q", got)
	}
	if got := v.Matcher().Find([]byte("first-value"), allowed); got != "" {
		t.Errorf("found %q", got)
	}
	if got := v.Matcher().MaskString("first-value"); got != Mask {
		t.Errorf("what is allowed is masked as %q", got)
	}
	if !v.Matcher().Searches(allowed) || values("a", "first-value").Matcher().Searches(allowed) {
		t.Error("Searches does not tell")
	}
}

func masked(v *Values, parts ...string) string {
	var out bytes.Buffer
	w := NewMasker(v.Matcher, func(b []byte) { out.Write(b) })
	for _, p := range parts {
		_, _ = w.Write([]byte(p))
	}
	w.Flush()
	return out.String()
}

func TestMaskerAtEverySplit(t *testing.T) {
	v := values("a", "overlapping-value", "b", "value-of-another", "c", "aaaaaaaaaa")
	text := "begin overlapping-value-of-another, overlapping-valu, aaaaaaaaaaaaaaaaaaaaaaaaa value-of-another\nend overlap"
	want := "begin ***, overlapping-valu, *** ***\nend overlap"
	if got := v.Matcher().MaskString(text); got != want {
		t.Fatalf("whole: %q", got)
	}
	for i := range text {
		for j := i; j < len(text); j++ {
			if got := masked(v, text[:i], text[i:j], text[j:]); got != want {
				t.Fatalf("split at %d and %d: %q", i, j, got)
			}
		}
	}
	var single []string
	for i := range text {
		single = append(single, text[i:i+1])
	}
	if got := masked(v, single...); got != want {
		t.Fatalf("byte by byte: %q", got)
	}
}

// locked is output that a clock may add to.
type locked struct {
	mu   sync.Mutex
	text []byte
}

func (l *locked) add(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, b...)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

func TestMaskerLetsPromptsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := values("a", "Password-is-this")
		var out locked
		w := NewMasker(v.Matcher, out.add)
		_, _ = w.Write([]byte("Give me a Pass"))
		if out.String() != "Give me a " {
			t.Errorf("at once: %q", out.String())
		}
		time.Sleep(2 * quiet)
		synctest.Wait()
		if out.String() != "Give me a Pass" {
			t.Errorf("after a while: %q", out.String())
		}
		_, _ = w.Write([]byte("word-is-this and more"))
		if out.String() != "Give me a Pass*** and more" {
			t.Errorf("the rest of the value: %q", out.String())
		}
		_, _ = w.Write([]byte(" Password-is"))
		time.Sleep(time.Hour)
		synctest.Wait()
		if out.String() != "Give me a Pass*** and more " {
			t.Errorf("most of a value was let go: %q", out.String())
		}
		_, _ = w.Write([]byte("-this"))
		if out.String() != "Give me a Pass*** and more ***" {
			t.Errorf("a value in two writes: %q", out.String())
		}
		w.Flush()
	})
}

func TestMaskerHearsOfNewValues(t *testing.T) {
	v := &Values{}
	var out bytes.Buffer
	w := NewMasker(v.Matcher, func(b []byte) { out.Write(b) })
	_, _ = w.Write([]byte("nothing known-to-it yet\n"))
	v.Learn("id", []byte("known-to-it"))
	_, _ = w.Write([]byte("known-to-it\n"))
	w.Flush()
	if got := out.String(); got != "nothing known-to-it yet\n***\n" {
		t.Errorf("%q", got)
	}
}

func TestMaskError(t *testing.T) {
	m := values("id", "secret-value").Matcher()
	err := m.MaskError(fmt.Errorf("open secret-value: %w", fs.ErrNotExist))
	if err.Error() != "open ***: file does not exist" || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	other := errors.New("other")
	if m.MaskError(other) != other || m.MaskError(nil) != nil || (*Matcher)(nil).MaskError(other) != other { //nolint:errorlint // the very same
		t.Error("an error without a value is changed")
	}
}

func TestFinderAcrossWrites(t *testing.T) {
	m := values("id", token).Matcher()
	for size := 1; size < 40; size++ {
		f := m.NewFinder(nil)
		data := []byte(strings.Repeat("x", 17) + token + strings.Repeat("y", 31))
		for rest := data; len(rest) > 0; {
			n := min(size, len(rest))
			_, _ = f.Write(rest[:n])
			rest = rest[n:]
		}
		if f.Found() != "id" {
			t.Errorf("writes of %d bytes: not found", size)
		}
		f.Reset()
		_, _ = f.Write(data[:17+len(token)-1])
		if f.Found() != "" {
			t.Errorf("writes of %d bytes: part of a value is found", size)
		}
	}
}

func TestJoin(t *testing.T) {
	a, b := values("a", "value-of-a", "both", "value-of-both"), values("b", "value-of-b", "both", "value-of-both")
	m := Join(a, nil, b)
	if got := m.MaskString("value-of-a value-of-b value-of-both"); got != "*** *** ***" {
		t.Errorf("%q", got)
	}
	if Join(b, a).Fingerprint() != m.Fingerprint() || a.Matcher().Fingerprint() == m.Fingerprint() {
		t.Error("fingerprints do not tell sets apart")
	}
	if Join() != nil || Join(nil, &Values{}) != nil {
		t.Error("nothing finds something")
	}
}

// FuzzMasker holds a stream in pieces against the text as a whole.
func FuzzMasker(f *testing.F) {
	f.Add([]byte("text with the-value in it"), "the-value", uint64(1))
	f.Add([]byte("aaaaaaaaaaaaaaaaaaaaaaaaaaaa"), "aaaaaaaaa", uint64(2))
	f.Add([]byte("abababababaababababab"), "abababab\nbabababa", uint64(3))
	f.Fuzz(func(t *testing.T, text []byte, value string, seed uint64) {
		v := values("id", value)
		want := text
		if m := v.Matcher(); m != nil {
			want = replace(text, m.spans(text, true))
		}
		r := rand.New(rand.NewPCG(seed, 0))
		var out bytes.Buffer
		w := NewMasker(v.Matcher, func(b []byte) { out.Write(b) })
		for rest := text; len(rest) > 0; {
			n := 1 + r.IntN(min(len(rest), 20))
			_, _ = w.Write(rest[:n])
			rest = rest[n:]
		}
		w.Flush()
		// Masks that touch may be told one by one.
		squeeze := func(b []byte) string {
			s := string(b)
			for strings.Contains(s, Mask+Mask) {
				s = strings.ReplaceAll(s, Mask+Mask, Mask)
			}
			return s
		}
		if squeeze(out.Bytes()) != squeeze(want) {
			t.Errorf("value %q in %q: in pieces %q, as a whole %q", value, text, out.Bytes(), want)
		}
	})
}

func BenchmarkFind(b *testing.B) {
	data := make([]byte, 16<<20)
	r := rand.NewChaCha8([32]byte{})
	_, _ = r.Read(data[:8<<20])
	copy(data[8<<20:], bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog 0123456789\n"), 1<<20))
	for name, v := range map[string]*Values{
		"token": values("id", token), "key": values("id", key), "ten": tenValues(),
	} {
		m := v.Matcher()
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if m.Find(data, nil) != "" {
					b.Fatal("found")
				}
			}
		})
	}
}

func tenValues() *Values {
	v := &Values{}
	for i := range 10 {
		v.Learn(fmt.Sprint(i), fmt.Appendf(nil, "npm_%032x", i*7919))
	}
	return v
}

func BenchmarkMasker(b *testing.B) {
	v := tenValues()
	line := []byte("#12 0.345 go: downloading github.com/some/module v1.2.3 npm info it worked if it ends with ok\n")
	w := NewMasker(v.Matcher, func([]byte) {})
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		_, _ = w.Write(line)
	}
}

func BenchmarkLearn(b *testing.B) {
	for b.Loop() {
		values("id", key).Matcher()
	}
}
