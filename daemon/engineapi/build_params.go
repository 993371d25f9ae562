package engineapi

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	"github.com/slipwaybuild/slipway/daemon"
)

// Contexts that remote names besides URLs.
const (
	contextOfSession = "client-session"
	contextOfUpload  = "upload-request"
)

// uploadPrefix begins the build id of a request that only brings the context of another one.
const uploadPrefix = contextOfUpload + ":"

// maxBuildID bounds the client's name for a build, in bytes.
const maxBuildID = 512

// ulimit is a limit of a step's processes, with the names of docker's JSON.
type ulimit struct {
	Name       string
	Hard, Soft int64
}

// buildParams are the parameters of POST /build. Those that are absent, empty or "null" have their zero value: old clients send
// all of them, new ones only what differs.
type buildParams struct {
	classic    bool   // the classic builder is asked for, or none by name
	id         string // the client's, to cancel it by
	session    string
	remote     string
	dockerfile string
	tags       tags
	target     string
	platform   string
	outputs    []daemon.Output
	args       map[string]*string
	labels     map[string]string
	cacheFrom  []string
	remove     bool // containers of steps, told by the classic builder
	// removeAlways also those of steps that failed
	removeAlways bool
	noCache      bool
	pull         bool
	quiet        bool
	network      string
	hosts        []string
	limits       map[string]string // attributes of the frontend
	ulimits      []ulimit
}

// parseBuild reads the parameters, refusing what would have no effect. Some of them exist from a version on, and are ignored
// before it, as docker's daemon does.
func parseBuild(r *http.Request) (p *buildParams, err error) {
	q := r.URL.Query()
	p = &buildParams{
		id: q.Get("buildid"), session: q.Get("session"), remote: q.Get("remote"), dockerfile: q.Get("dockerfile"),
		target: q.Get("target"), network: q.Get("networkmode"), hosts: q["extrahosts"],
		noCache: boolParam(q, "nocache"), quiet: boolParam(q, "q"),
		pull: boolParam(q, "pull") && speaks(r, 16), removeAlways: boolParam(q, "forcerm"),
	}
	// New clients leave out what is usual, old ones from before there was a usual say nothing either.
	p.remove = boolParam(q, "rm") || !q.Has("rm") && speaks(r, 12)
	for _, read := range []func() error{
		func() error { return p.readBuilder(q) },
		p.checkRemote,
		func() error { return p.readTags(q) },
		func() error { return p.readPlatform(r, q) },
		func() error { return p.readJSON(r, q) },
		func() error { return p.readLimits(q) },
		func() error { return refuseParams(q) },
	} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	if len(p.id) > maxBuildID {
		return nil, invalid("build ID of %d bytes, at most %d are taken", len(p.id), maxBuildID)
	}
	return p, nil
}

func (p *buildParams) readBuilder(q url.Values) error {
	switch v := q.Get("version"); v {
	case "", "1":
		p.classic = true
	case "2":
	default:
		return invalid("invalid version %q", v)
	}
	if p.classic && p.remote == contextOfSession {
		return invalid("experimental session with v1 builder is no longer supported, use builder version v2 (BuildKit) instead")
	}
	return nil
}

// checkRemote refuses what is no place of a context.
func (p *buildParams) checkRemote() error {
	switch p.remote {
	case "", contextOfSession, contextOfUpload:
		return nil
	}
	if u, err := url.Parse(p.remote); err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https") {
		return nil
	}
	_, isGit, err := dfgitutil.ParseGitRef(p.remote)
	switch {
	case err != nil && isGit:
		return invalid("remote %q: %w", p.remote, err)
	case !isGit:
		return invalid("remote %q is neither a git repository nor an http(s) URL", p.remote)
	}
	return nil
}

func (p *buildParams) readTags(q url.Values) (err error) {
	p.tags, err = parseTags(q["t"])
	return err
}

func (p *buildParams) readPlatform(r *http.Request, q url.Values) error {
	if !speaks(r, 32) {
		return nil
	}
	p.platform = q.Get("platform")
	for name := range strings.SplitSeq(p.platform, ",") {
		if p.platform == "" {
			break
		}
		if _, err := platforms.Parse(name); err != nil {
			return invalid("%w", err)
		}
	}
	return nil
}

// readJSON reads the parameters that are JSON.
func (p *buildParams) readJSON(r *http.Request, q url.Values) error {
	for _, v := range []struct {
		key, what string
		into      any
		since     int
	}{
		{"buildargs", "error reading build args", &p.args, 0},
		{"labels", "error reading labels", &p.labels, 0},
		{"ulimits", "error reading ulimit settings", &p.ulimits, 0},
		{"cachefrom", "error reading cache-from", &p.cacheFrom, 0},
		{"outputs", "error reading outputs", &p.outputs, 40},
	} {
		text := q.Get(v.key)
		if text == "" || !speaks(r, v.since) {
			continue
		}
		if err := json.Unmarshal([]byte(text), v.into); err != nil {
			return invalid("%s: %w", v.what, err)
		}
	}
	for _, o := range p.outputs {
		if o.Type == "" {
			return invalid("error reading outputs: an output without a type")
		}
	}
	return nil
}

// readLimits reads the limits of steps into the attributes that the frontend knows them by.
func (p *buildParams) readLimits(q url.Values) error {
	p.limits = map[string]string{}
	for key, attr := range map[string]string{
		"memory": "memory", "memswap": "memswap", "cpushares": "cpushares", "cpuperiod": "cpuperiod", "cpuquota": "cpuquota", "shmsize": "shm-size",
	} {
		n, err := intParam(q, key)
		switch {
		case err != nil:
			return err
		case n == 0:
			continue
		case n < 0 && key != "memswap" && key != "cpuquota":
			return invalid("parameter %s: %d is less than 0", key, n)
		case n == -1 && key == "cpuquota":
			continue // is how "no quota" is also said
		}
		p.limits[attr] = q.Get(key)
	}
	for key, attr := range map[string]string{"cpusetcpus": "cpusetcpus", "cpusetmems": "cpusetmems", "cgroupparent": "cgroup-parent"} {
		if v := q.Get(key); v != "" {
			p.limits[attr] = v
		}
	}
	for _, u := range p.ulimits {
		if u.Name == "" || strings.ContainsAny(u.Name, "=,:\"\n") {
			return invalid("error reading ulimit settings: %q is no name of a limit", u.Name)
		}
	}
	return nil
}

// refuseParams refuses what cannot be done here.
func refuseParams(q url.Values) error {
	if v := q.Get("isolation"); v != "" {
		switch strings.ToLower(v) {
		case "default":
		case "process", "hyperv":
			return invalid("isolation %q is not supported on linux", v)
		default:
			return invalid("Unsupported isolation: %q", v)
		}
	}
	if v := q.Get("securityopt"); v != "" && v != "null" && v != "[]" {
		return invalid("The daemon on this platform does not support setting security options on build")
	}
	if boolParam(q, "squash") {
		return invalid("squash is only supported with experimental mode")
	}
	return nil
}
