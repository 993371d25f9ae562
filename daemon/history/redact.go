package history

import (
	"regexp"
	"strings"
)

// credentials finds what stands before the @ of a URL's host.
var credentials = regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)([^/?#\s"']*)@`)

// mask stands for a secret.
const mask = "xxxxx"

// maxValue bounds one value of a record, and maxValues all of one kind, in bytes: a record is one message.
const (
	maxValue  = 256 << 10
	maxValues = 2 << 20
)

// redact masks the credentials of URLs in text. The user of a URL without a password is one, unless it is a login name, as in ssh://git@host.
func redact(text string) string {
	return credentials.ReplaceAllStringFunc(text, func(match string) string {
		parts := credentials.FindStringSubmatch(match)
		scheme, user := parts[1], parts[2]
		name, _, hasPassword := strings.Cut(user, ":")
		switch {
		case user == "":
			return match
		case !hasPassword && !strings.HasPrefix(strings.ToLower(scheme), "http"):
			return match
		case !hasPassword || name == "":
			return scheme + mask + "@"
		}
		return scheme + mask + ":" + mask + "@"
	})
}

// redactAll is a copy of m for a record: without credentials, and of a bounded size.
func redactAll(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	out := make(map[string]string, len(m))
	left := maxValues
	for k, v := range m {
		if len(v) > maxValue || len(k)+len(v) > left {
			v = "(too long to be recorded)"
		}
		if left -= len(k) + len(v); left < 0 {
			break
		}
		out[k] = redact(v)
	}
	return out
}
