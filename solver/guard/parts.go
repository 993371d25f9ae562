package guard

import (
	"bytes"
	"net/url"
)

const (
	// minPart is how long a part of a value must be to be a secret of its own.
	minPart = 16
	// maxParts bounds how many parts of one value are looked for.
	maxParts = 256
)

// partsOf lists what in a value is itself a secret: the token in a header, the password in a configuration file, the lines of a key.
// What does not look like chance is left out: a file that shares a word with a key file leaks nothing.
func partsOf(value []byte) [][]byte {
	var parts [][]byte
	fields := bytes.FieldsFunc(value, func(r rune) bool {
		switch r {
		case ' ', '\t', '\n', '\r', '"', '\'', ',', ';', '{', '}', '[', ']', '(', ')', '<', '>':
			return true
		}
		return false
	})
	for _, f := range fields {
		if len(parts) >= maxParts {
			break
		}
		for _, p := range assigned(f) {
			if len(p) >= minPart && len(p) < len(value) && random(p) {
				parts = append(parts, p)
			}
		}
	}
	return parts
}

// assigned is a field and, of name=value or name:value, the value. Of a URL it is the password.
func assigned(field []byte) [][]byte {
	if bytes.Contains(field, []byte("://")) {
		at := bytes.Index(field, []byte("://"))
		start := bytes.LastIndexByte(field[:at], '=') + 1
		u, err := url.Parse(string(field[start:]))
		if err != nil || u.User == nil {
			return nil
		}
		password, _ := u.User.Password()
		return [][]byte{[]byte(password)}
	}
	list := [][]byte{field}
	if i := bytes.IndexByte(field, '='); i >= 0 && i < len(bytes.TrimRight(field, "=")) {
		list = [][]byte{field[i+1:]}
	}
	last := list[len(list)-1]
	if i := bytes.LastIndexByte(last, ':'); i >= 0 {
		list[len(list)-1] = last[i+1:]
	}
	return list
}

// random tells whether text looks like chance: letters and digits, many different ones, and no path.
func random(text []byte) bool {
	if text[0] == '/' || bytes.Contains(text, []byte("//")) || bytes.HasPrefix(text, []byte("-----")) {
		return false
	}
	var letters, digits, distinct int
	var seen [256]bool
	for _, c := range text {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case c|0x20 >= 'a' && c|0x20 <= 'z':
			letters++
		}
		if !seen[c] {
			seen[c] = true
			distinct++
		}
	}
	return letters > 0 && digits > 0 && distinct >= 8
}
