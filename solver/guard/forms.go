package guard

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"strings"
)

const (
	// maxPiece bounds one form, in bytes, and with it what is held back of a stream. Longer ones are cut, each piece a form.
	maxPiece = 4096
	// maxDump is how much of a value is expected in forms that write a few bytes at a time.
	maxDump = 1024
)

// forms collects what a value may look like.
type forms struct {
	at   map[string]int // in the list
	list []form
}

type form struct {
	text []byte
	// refuse says that finding it is a leak. Otherwise it is masked only.
	refuse bool
}

// formsOf lists the forms of a value of at least [MinFind] bytes.
func formsOf(value []byte) []form {
	f := &forms{at: map[string]int{}}
	f.whole(value)
	lines := bytes.Split(value, []byte("\n"))
	if len(lines) > 1 {
		f.lines(lines)
	}
	for _, p := range partsOf(value) {
		f.add(string(p), true)
		f.encoded(p)
	}
	return f.list
}

// whole adds the value and all that it may be turned into at once.
func (f *forms) whole(value []byte) {
	s := string(value)
	f.add(s, true)
	f.encoded(value)
	f.dumps(value)
	if strings.Contains(s, "\n") {
		flat := strings.ReplaceAll(s, "\r\n", "\n")
		f.add(strings.ReplaceAll(flat, "\n", "\r\n"), true)
		f.add(strings.ReplaceAll(flat, "\n", " "), true) // what a shell makes of an unquoted variable
	}
	f.add(url.QueryEscape(s), true)
	f.add(url.PathEscape(s), true)
	f.add(lowerEscapes(url.QueryEscape(s)), true)
	f.add(lowerEscapes(url.PathEscape(s)), true)
	f.add(inJSON(s, true), true)
	f.add(inJSON(s, false), true)
	f.add(html.EscapeString(s), true)
	f.add(strings.ReplaceAll(s, "'", `'\''`), true)
	f.add(strings.ReplaceAll(s, "'", `'"'"'`), true)
	f.add(backslashed(s, "$`\"\\"), true)
	f.add(backslashed(s, "$`\"\\ '!#&()*;<>?[]^{|}~"), true)
	f.add(strings.Trim(fmt.Sprintf("%q", s), `"`), true)
}

// encoded adds base64 and hex, which tools also break into lines.
func (f *forms) encoded(value []byte) {
	for shift := range 3 {
		std, web := base64At(base64.RawStdEncoding, value, shift), base64At(base64.RawURLEncoding, value, shift)
		f.add(std, true)
		f.add(web, true)
	}
	std := base64.RawStdEncoding.EncodeToString(value[:len(value)/3*3])
	f.broken(std, 76)
	f.broken(std, 64)
	lower := hex.EncodeToString(value)
	f.add(lower, true)
	f.add(strings.ToUpper(lower), true)
	f.broken(lower, 60)
}

// base64At is what all of value looks like in the middle of something encoded, where shift bytes of its first group are not its own:
// without the characters that hold bits of what stands around it.
func base64At(e *base64.Encoding, value []byte, shift int) string {
	text := e.EncodeToString(append(make([]byte, shift), value...))
	whole := (shift + len(value)) * 8 / 6 // characters that depend on nothing after the value
	return text[(shift*8+5)/6 : whole]
}

// broken adds the lines of an encoded text, those long enough to mean something.
func (f *forms) broken(text string, width int) {
	if len(text) <= width || len(text) > 4*maxDump {
		return
	}
	for len(text) >= 16 {
		n := min(width, len(text))
		f.add(text[:n], true)
		text = text[n:]
	}
}

// dumps adds what od, xxd, hexdump and openssl print, eight bytes at a time.
func (f *forms) dumps(value []byte) {
	for rest := value[:min(len(value), maxDump)]; len(rest) >= MinFind; rest = rest[min(len(rest), 8):] {
		eight := rest[:8]
		spaced := fmt.Sprintf("% x", eight)
		pairs := fmt.Sprintf("%x %x %x %x", eight[:2], eight[2:4], eight[4:6], eight[6:])
		for _, s := range []string{spaced, pairs, strings.ReplaceAll(spaced, " ", ":")} {
			f.add(s, true)
			f.add(strings.ToUpper(s), true)
		}
	}
}

// lines adds each line of a value that is long enough. A line that says what follows, or is a comment, is nobody's secret.
func (f *forms) lines(lines [][]byte) {
	for _, l := range lines {
		l = bytes.TrimSpace(l)
		if len(l) < MinFind || bytes.HasPrefix(l, []byte("-----")) || bytes.HasPrefix(l, []byte("#")) {
			continue
		}
		f.add(string(l), false)
	}
}

// add adds a form, cut where it is too long. What is too short to be found for sure is left out.
func (f *forms) add(text string, refuse bool) {
	for len(text) > maxPiece {
		f.addPiece(text[:maxPiece], refuse)
		text = text[maxPiece:]
	}
	f.addPiece(text, refuse)
}

func (f *forms) addPiece(text string, refuse bool) {
	if len(text) < MinFind {
		return
	}
	if i, ok := f.at[text]; ok {
		f.list[i].refuse = f.list[i].refuse || refuse
		return
	}
	f.at[text] = len(f.list)
	f.list = append(f.list, form{text: []byte(text), refuse: refuse})
}

// lowerEscapes is a percent-encoded text with its hex digits in lower case.
func lowerEscapes(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:i+3], bytes.ToLower(b[i+1:i+3]))
			i += 2
		}
	}
	return string(b)
}

func inJSON(s string, escapeHTML bool) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(escapeHTML)
	if e.Encode(s) != nil {
		return ""
	}
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimSuffix(b.String(), "\n"), `"`), `"`)
}

func backslashed(s, special string) string {
	var b strings.Builder
	for i := range len(s) {
		if strings.IndexByte(special, s[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
