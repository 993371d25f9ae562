package dockerengine

import (
	"fmt"
	"strconv"
	"strings"
)

// Version is a version of the API.
type Version struct{ Major, Minor int }

// newest is the newest version whose POST /build is known; a newer daemon speaks it too.
var newest = Version{1, 51}

// ParseVersion reads what a daemon calls its version, such as 1.41.
func ParseVersion(s string) (Version, error) {
	major, minor, ok := strings.Cut(s, ".")
	a, err := strconv.ParseUint(major, 10, 16)
	b, err2 := strconv.ParseUint(minor, 10, 16)
	if !ok || err != nil || err2 != nil {
		return Version{}, fmt.Errorf("%q is no version of Docker's Engine API", s)
	}
	return Version{int(a), int(b)}, nil
}

func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// Before tells whether a version is older than another.
func (v Version) Before(o Version) bool {
	return v.Major < o.Major || v.Major == o.Major && v.Minor < o.Minor
}

// Engine is who answers.
type Engine struct {
	// API is the version of the API that is spoken with it.
	API Version
	// Server is what it calls itself, such as "Docker/28.3.3 (linux)"; old ones call themselves nothing.
	Server string
}

// Slipway tells whether the daemon is slipwayd, which takes by this API what Docker's daemon does not.
func (e Engine) Slipway() bool { return strings.HasPrefix(e.Server, "Slipway/") }

// Knows tells whether the daemon knows what came with version 1.minor of the API.
func (e Engine) Knows(minor int) bool { return !e.API.Before(Version{1, minor}) }
