package git

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/gitutil"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/source"
)

// query is a request that makes sense.
type query struct {
	// remote is what git is given. It never holds a password: what was in the URL is in auth.
	remote string
	// auth is the user and password of an http URL; nil if it had none.
	auth           *url.Userinfo
	ref            string
	subdir         string // clean, relative, "" for all
	checksum       string // hex, may be shortened
	keepGitDir     bool
	tokenSecret    string
	headerSecret   string
	knownHosts     string
	sshSocket      string
	skipSubmodules bool
	commitTimes    bool
	advice         bool // show git's advice
	oldModes       bool
	fetchByCommit  bool
	signature      *signature
}

// signature says how a commit or tag must be signed.
type signature struct {
	pubKey        []byte
	rejectExpired bool
	requireTag    bool
	ignoreTag     bool
}

var hexOnly = regexp.MustCompile(`^[a-f0-9]{4,64}$`)

func parse(r source.Request) (*query, error) {
	rest, ok := strings.CutPrefix(r.Identifier, "git://")
	if !ok {
		return nil, errors.New("identifier does not start with git://")
	}
	u, err := parseURL(rest)
	if err != nil {
		return nil, err
	}
	q := &query{oldModes: r.OldModes}
	if u.Opts != nil {
		q.ref, q.subdir = u.Opts.Ref, u.Opts.Subdir
	}
	if full := r.Attrs[pb.AttrFullRemoteURL]; full != "" {
		f, err := parseURL(full)
		if err != nil {
			return nil, fmt.Errorf("attribute %s: %w", pb.AttrFullRemoteURL, err)
		}
		if !strings.EqualFold(f.Host, u.Host) || repository(f.Path) != repository(u.Path) {
			return nil, fmt.Errorf("attribute %s does not match the source's identifier", pb.AttrFullRemoteURL)
		}
		u = f
	}
	q.setRemote(u)
	for k, v := range r.Attrs {
		if err := q.set(k, v); err != nil {
			return nil, fmt.Errorf("attribute %s: %w", k, err)
		}
	}
	if q.ref == "HEAD" {
		q.ref = ""
	}
	return q, q.check()
}

// parseURL parses "host/path", any URL that git transports, or "user@host:path".
func parseURL(s string) (*gitutil.GitURL, error) {
	if !gitutil.IsGitTransport(s) {
		s = "https://" + s
	}
	u, err := gitutil.ParseURL(s)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // the URL may hold credentials
		}
		return nil, fmt.Errorf("parse URL: %w", err)
	}
	return u, nil
}

// repository is a path as identifiers write it.
func repository(p string) string { return strings.TrimSuffix(path.Join("/", p), ".git") }

func (q *query) setRemote(u *gitutil.GitURL) {
	q.remote = u.Remote
	if u.Scheme != gitutil.HTTPProtocol && u.Scheme != gitutil.HTTPSProtocol {
		return
	}
	q.auth = u.User
	q.remote = (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

func (q *query) set(k, v string) error {
	switch k {
	case pb.AttrKeepGitDir:
		q.keepGitDir = v == "true"
	case pb.AttrAuthHeaderSecret:
		q.headerSecret = v
	case pb.AttrAuthTokenSecret:
		q.tokenSecret = v
	case pb.AttrKnownSSHHosts:
		q.knownHosts = v
	case pb.AttrMountSSHSock:
		q.sshSocket = v
	case pb.AttrGitChecksum:
		if q.checksum = strings.ToLower(v); v != "" && !hexOnly.MatchString(q.checksum) {
			return fmt.Errorf("invalid checksum %s for Git URL, expected hex commit hash", v)
		}
	case pb.AttrGitSkipSubmodules:
		q.skipSubmodules = v == "true"
	case pb.AttrGitAdvice:
		q.advice = v == "true"
	case pb.AttrGitMTime:
		if v != "" && v != "checkout" && v != "commit" {
			return fmt.Errorf("unknown value %q", v)
		}
		q.commitTimes = v == "commit"
	case pb.AttrGitFetchByCommit:
		q.fetchByCommit = v == "true"
	case pb.AttrGitBundle, pb.AttrGitCheckoutBundle:
		if v != "" && v != "false" {
			return errors.New("git bundles are not supported")
		}
	default:
		q.setSignature(k, v)
	}
	return nil
}

func (q *query) setSignature(k, v string) {
	if !strings.HasPrefix(k, "git.sig.") {
		return
	}
	if q.signature == nil {
		q.signature = &signature{}
	}
	switch k {
	case pb.AttrGitSignatureVerifyPubKey:
		q.signature.pubKey = []byte(v)
	case pb.AttrGitSignatureVerifyRejectExpired:
		q.signature.rejectExpired = v == "true"
	case pb.AttrGitSignatureVerifyRequireSignedTag:
		q.signature.requireTag = v == "true"
	case pb.AttrGitSignatureVerifyIgnoreSignedTag:
		q.signature.ignoreTag = v == "true"
	}
}

// check refuses what git could take for something else than it is, and what contradicts itself.
func (q *query) check() error {
	switch {
	case strings.HasPrefix(q.ref, "-") || strings.ContainsAny(q.ref, "\x00\n\r \t~^:?*[\\") || strings.Contains(q.ref, ".."):
		return fmt.Errorf("invalid git ref %q", q.ref)
	case strings.HasPrefix(q.remote, "-") || strings.ContainsAny(q.remote, "\x00\n\r"):
		return errors.New("invalid remote URL")
	case gitutil.IsCommitSHA(q.ref) && !strings.HasPrefix(q.ref, q.checksum):
		return q.mismatch(q.ref)
	case q.fetchByCommit && !gitutil.IsCommitSHA(q.ref) && q.checksum == "":
		return errors.New("fetch-by-commit requires a checksum or a commit SHA ref")
	case q.fetchByCommit && !gitutil.IsCommitSHA(q.ref) && !gitutil.IsCommitSHA(q.checksum):
		return fmt.Errorf("fetch-by-commit requires a full commit SHA checksum, got %q", q.checksum)
	case q.signature != nil && len(q.signature.pubKey) == 0:
		return errors.New("checking a signature takes a public key")
	case strings.HasPrefix(q.subdir, "../") || q.subdir == "..":
		return fmt.Errorf("subdirectory %q leads out of the repository", q.subdir)
	}
	return nil
}

func (q *query) mismatch(got string) error {
	return fmt.Errorf("expected checksum to match %s, got %s", q.checksum, got)
}

// keepsGit tells whether the checkout has a .git: of a subdirectory it makes no sense.
func (q *query) keepsGit() bool { return q.keepGitDir && q.subdir == "" }

// snapshot names what is checked out of a commit; the same whatever remote it came from, unless that is written in it.
func (q *query) snapshot(p pin) string {
	origin, ref := "", ""
	if q.keepsGit() {
		origin, ref = q.remote, p.Ref
	}
	what := []any{p.key(q), q.subdir, q.skipSubmodules, q.commitTimes, origin, ref}
	if q.oldModes {
		what = append(what, "old modes")
	}
	b, _ := json.Marshal(what) // plain data
	return digest.FromBytes(b).Encoded()
}

// scope is the URL below which credentials are used. Those for one repository of github.com are tried for all of it, as
// actions/checkout does, so that private submodules can be had.
func scope(remote string) string {
	for _, github := range []string{"https://github.com/", "https://www.github.com/"} {
		if strings.HasPrefix(remote, github) {
			return github
		}
	}
	return remote
}
