package sourcepolicy

import (
	"path"
	"strings"

	distref "github.com/distribution/reference"
	"github.com/moby/buildkit/util/gitutil"
)

// canonical writes an identifier as BuildKit does, so that a rule about a source cannot be passed by with another spelling of
// it. What cannot be parsed stays as it is: its source will refuse it.
func canonical(identifier string) string {
	scheme, rest, ok := strings.Cut(identifier, "://")
	if !ok {
		return identifier
	}
	switch scheme {
	case "docker-image", "docker-image+blob":
		if named, err := distref.ParseNormalizedNamed(rest); err == nil {
			return scheme + "://" + distref.TagNameOnly(named).String()
		}
	case "git":
		return canonicalGit(identifier, rest)
	case "http", "https":
		end := strings.IndexAny(rest, "/?#")
		if end < 0 {
			end = len(rest)
		}
		// What stands before an @ are credentials, in which case counts.
		host := strings.LastIndexByte(rest[:end], '@') + 1
		return scheme + "://" + rest[:host] + strings.ToLower(rest[host:end]) + rest[end:]
	}
	return identifier
}

func canonicalGit(identifier, rest string) string {
	remote := rest
	if !gitutil.IsGitTransport(remote) {
		remote = "https://" + remote
	}
	u, err := gitutil.ParseURL(remote)
	if err != nil {
		return identifier
	}
	id := "git://" + strings.ToLower(u.Host) + path.Join("/", u.Path)
	if u.Opts == nil || u.Opts.Ref == "" && u.Opts.Subdir == "" {
		return id
	}
	id += "#" + u.Opts.Ref
	if u.Opts.Subdir != "" {
		id += ":" + u.Opts.Subdir
	}
	return id
}
