package daemon

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	"github.com/slipwaybuild/slipway/daemon/provenance"
	"github.com/slipwaybuild/slipway/frontend"
	"github.com/slipwaybuild/slipway/frontend/dockerfile"
	"github.com/slipwaybuild/slipway/frontend/gateway"
)

// producers remember which requests gave which graphs, while the builds that made them run: a client may give what one frontend
// returned to another as an input, in the same build or in one beside it, and provenance tells where it came from.
type producers struct {
	mu   sync.Mutex
	made map[output]map[*build]*provenance.Request // nil for a build that gave one graph to different requests
}

// output names one output of a graph.
type output struct {
	digest string
	index  int64
}

func newProducers() *producers {
	return &producers{made: map[output]map[*build]*provenance.Request{}}
}

// outputOf is what a definition asks for; false if that is nothing.
func outputOf(def *pb.Definition) (output, bool) {
	if len(def.GetDef()) == 0 {
		return output{}, false
	}
	var last pb.Op
	if last.UnmarshalVT(def.Def[len(def.Def)-1]) != nil || len(last.Inputs) == 0 || last.Inputs[0] == nil {
		return output{}, false
	}
	return output{digest: last.Inputs[0].Digest, index: last.Inputs[0].Index}, true
}

// add remembers who asked for what a frontend returned, until forget.
func (p *producers) add(b *build, res *frontend.Result) {
	_ = res.EachRef(func(r gwclient.Reference) error {
		own := referenceOf(r)
		if own == nil || own.scope == nil || own.scope.request == nil {
			return nil
		}
		if out, ok := outputOf(own.def); ok {
			p.addOne(b, out, own.scope.request)
		}
		return nil
	})
}

func (p *producers) addOne(b *build, out output, r *provenance.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.made[out] == nil {
		p.made[out] = map[*build]*provenance.Request{}
	}
	if former, ok := p.made[out][b]; ok && !reflect.DeepEqual(former, r) {
		r = nil
	}
	p.made[out][b] = r
}

// forget drops what a build made.
func (p *producers) forget(b *build) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for out, by := range p.made {
		delete(by, b)
		if len(by) == 0 {
			delete(p.made, out)
		}
	}
}

// find returns the request that gave a graph; nil if that is not known, or is not the same for all who made it.
func (p *producers) find(def *pb.Definition) *provenance.Request {
	out, ok := outputOf(def)
	if !ok {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var found *provenance.Request
	for _, r := range p.made[out] {
		if r == nil || found != nil && !reflect.DeepEqual(found, r) {
			return nil
		}
		found = r
	}
	return found
}

// maxToldInputs bounds, in bytes, what is told of the inputs of one request: inputs of inputs would otherwise double at every step.
const maxToldInputs = 1 << 20

// weight is about how much telling of a request takes.
func weight(r *provenance.Request) int {
	n := len(r.Frontend) + 64
	for k, v := range r.Args {
		n += len(k) + len(v)
	}
	for name, in := range r.Inputs {
		n += len(name) + weight(in)
	}
	return n
}

// replaced tells whether a named context takes the place of a source, on any platform.
func replaced(opts map[string]string, source string) bool {
	for k := range opts {
		if name, ok := strings.CutPrefix(k, "context:"); ok && (name == source || strings.HasPrefix(name, source+"::")) {
			return true
		}
	}
	return false
}

// request is what provenance tells of a request. Inputs of which nothing is known are left out, and those of which there is too much to
// tell.
func (p *producers) request(name string, r frontend.Request) *provenance.Request {
	out := &provenance.Request{Frontend: name, Args: maps.Clone(r.Opts)}
	if name == gateway.Name && r.Opts["source"] == dockerfile.Name && !replaced(r.Opts, dockerfile.Name) {
		// It is the same frontend by a longer way.
		out.Frontend = dockerfile.Name
		delete(out.Args, "source")
	}
	left := maxToldInputs
	for _, name := range slices.Sorted(maps.Keys(r.Inputs)) {
		by := p.find(r.Inputs[name])
		if by == nil {
			continue
		}
		if left -= weight(by); left >= 0 {
			if out.Inputs == nil {
				out.Inputs = map[string]*provenance.Request{}
			}
			out.Inputs[name] = by
		}
	}
	return out
}
