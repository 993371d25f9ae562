package provenance

import (
	"cmp"
	"maps"
	"strings"

	"github.com/slipwaybuild/slipway/solver/ops"
)

// Request is what a frontend was asked for.
type Request struct {
	Frontend string
	// Args are the frontend's options as it got them.
	Args map[string]string
	// Inputs are the requests that gave the graphs it was given as contexts, by their names, as far as that is known. What led to
	// those requests is not told.
	Inputs map[string]*Request
}

// hostArgs are those that say nothing of what is built.
var hostArgs = map[string]bool{"cgroup-parent": true, "image-resolve-mode": true, "platform": true, "cache-imports": true}

// args are the arguments as they are told: without what only concerns this host, and without credentials.
func (r *Request) args() map[string]string {
	out := map[string]string{}
	for k, v := range r.Args {
		if !hostArgs[k] && !strings.HasPrefix(k, "attest:") && !strings.HasPrefix(k, "build-arg:BUILDKIT_ATTEST_") {
			out[k] = redact(v)
		}
	}
	return out
}

// configSource is where the build's description came from.
type configSource struct {
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest,omitempty"`
	Path   string            `json:"path,omitempty"`
}

// grant is a secret or an SSH agent.
type grant struct {
	ID       string `json:"id"`
	Optional bool   `json:"optional,omitempty"`
}

type local struct {
	Name string `json:"name"`
}

// parameters are the request as it is told.
type parameters struct {
	Frontend string                   `json:"frontend,omitempty"`
	Args     map[string]string        `json:"args,omitempty"`
	Secrets  []grant                  `json:"secrets,omitempty"`
	SSH      []grant                  `json:"ssh,omitempty"`
	Locals   []local                  `json:"locals,omitempty"`
	Inputs   map[string]nestedRequest `json:"inputs,omitempty"`
	Root     *nestedRequest           `json:"root,omitempty"`
	Compat   int                      `json:"compatibilityVersion,omitempty"`
}

// nestedRequest is a request that led to the one that is told.
type nestedRequest struct {
	ConfigSource configSource `json:"configSource"`
	Request      *parameters  `json:"request,omitempty"`
}

// told is a request with what is told elsewhere taken out of its arguments: where its description came from, and its repository.
type told struct {
	source configSource
	params parameters
	vcs    map[string]string
}

func (c *Capture) tell(r *Request) told {
	t := told{vcs: map[string]string{}}
	if r == nil {
		return t
	}
	args := r.args()
	contextKey := cmp.Or(r.Args["contextkey"], "context")
	if r.Args["contextkey"] == "" && r.Args["input:context"] != "" {
		contextKey = "input:context"
	}
	if uri := r.Args[contextKey]; uri != "" {
		found, ok := c.source(uri)
		if !ok {
			found.URI = redact(uri)
		}
		t.source = found
		delete(args, contextKey)
	}
	if name := args["filename"]; name != "" {
		t.source.Path = name
		delete(args, "filename")
	}
	maps.DeleteFunc(args, func(k, v string) bool {
		key, ok := strings.CutPrefix(k, "vcs:")
		if ok && v != "" {
			t.vcs[key] = v
		}
		return ok
	})
	t.params = parameters{Frontend: r.Frontend, Args: args}
	for name, in := range r.Inputs {
		if t.params.Inputs == nil {
			t.params.Inputs = map[string]nestedRequest{}
		}
		inner := c.tell(in)
		t.params.Inputs[name] = nestedRequest{ConfigSource: inner.source, Request: &inner.params}
	}
	return t
}

// empty tells whether nothing was asked for.
func (p *parameters) empty() bool { return p.Frontend == "" && len(p.Args) == 0 && len(p.Inputs) == 0 }

// scrub takes out what may be private; true if anything of the arguments was.
func (p *parameters) scrub() (incomplete bool) {
	maps.DeleteFunc(p.Args, func(k, _ string) bool {
		private := strings.HasPrefix(k, "build-arg:") || strings.HasPrefix(k, "label:")
		incomplete = incomplete || private
		return private
	})
	p.Secrets, p.SSH = nil, nil
	for _, in := range p.Inputs {
		if in.Request != nil {
			incomplete = in.Request.scrub() || incomplete
		}
	}
	if p.Root != nil && p.Root.Request != nil {
		incomplete = p.Root.Request.scrub() || incomplete
	}
	return incomplete
}

func grantsOf(list []ops.GrantUse) []grant {
	var out []grant
	for _, g := range list {
		out = append(out, grant{ID: g.ID, Optional: g.Optional})
	}
	return out
}
