package provenance

import "regexp"

// userinfo finds the user, or user and password, of an URL anywhere in a text.
var userinfo = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)([^/?#\s"'<>@:]+)(:[^/?#\s"'<>@]*)?@`)

// plainUser finds those that are no credential: it is how ssh is spoken.
var plainUser = regexp.MustCompile(`^(ssh|git\+ssh)://$`)

// redact takes users and passwords out of all URLs in a text, the way BuildKit does: "https://xxxxx:xxxxx@host". The user of an
// ssh URL without a password stays: it says which repository it is.
func redact(s string) string {
	return userinfo.ReplaceAllStringFunc(s, func(m string) string {
		parts := userinfo.FindStringSubmatch(m)
		switch {
		case parts[3] != "":
			return parts[1] + "xxxxx:xxxxx@"
		case plainUser.MatchString(parts[1]):
			return m
		}
		return parts[1] + "xxxxx@"
	})
}
