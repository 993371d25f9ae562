package engineapi

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
)

// version is a version of the Engine API.
type version struct{ major, minor int }

// The versions that are served. A newer one is advertised only when all that changed up to it is served: clients send and expect
// what the advertised version says.
var (
	newest = version{1, 41}
	oldest = version{1, 12}
)

func (v version) String() string { return fmt.Sprintf("%d.%d", v.major, v.minor) }

// less orders versions number by number.
func (v version) less(o version) bool {
	if v.major != o.major {
		return v.major < o.major
	}
	return v.minor < o.minor
}

// versionPrefix matches the version at the beginning of a path.
var versionPrefix = regexp.MustCompile(`^/v([0-9]{1,9})\.([0-9]{1,9})(/.*)$`)

// splitVersion takes the version off a path. Without one it is the newest.
func splitVersion(path string) (v version, rest string, given bool) {
	m := versionPrefix.FindStringSubmatch(path)
	if m == nil {
		return newest, path, false
	}
	// Nine digits are always a number.
	v.major, _ = strconv.Atoi(m[1])
	v.minor, _ = strconv.Atoi(m[2])
	return v, m[3], true
}

// check returns docker's words about a version that is not served.
func (v version) check() error {
	switch {
	case v.less(oldest):
		return invalid("client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", v, oldest)
	case newest.less(v):
		return invalid("client version %s is too new. Maximum supported API version is %s", v, newest)
	}
	return nil
}

type versionKey struct{}

func withVersion(r *http.Request, v version) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), versionKey{}, v))
}

// versionOf is the version that a request speaks.
func versionOf(r *http.Request) version {
	if v, ok := r.Context().Value(versionKey{}).(version); ok {
		return v
	}
	return newest
}

// speaks tells whether a request speaks version 1.minor or a newer one.
func speaks(r *http.Request, minor int) bool { return !versionOf(r).less(version{1, minor}) }
