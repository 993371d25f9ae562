package daemon

import (
	"strconv"
	"strings"
	"testing"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/slipwaybuild/slipway/daemon/provenance"
	"github.com/slipwaybuild/slipway/frontend"
)

func graphOf(t *testing.T, content string) *pb.Definition {
	t.Helper()
	def, err := llb.Scratch().File(llb.Mkfile("/f", 0o600, []byte(content))).Marshal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return def.ToPB()
}

func (p *producers) made1(t *testing.T, b *build, def *pb.Definition, r *provenance.Request) {
	t.Helper()
	out, ok := outputOf(def)
	if !ok {
		t.Fatal("the graph has no output")
	}
	p.addOne(b, out, r)
}

func TestProducersOfInputs(t *testing.T) {
	t.Parallel()
	p, one, two := newProducers(), &build{}, &build{}
	def := graphOf(t, "x")
	ask := func(args ...string) *provenance.Request {
		r := &provenance.Request{Frontend: "f", Args: map[string]string{}}
		for _, a := range args {
			r.Args[a] = a
		}
		return r
	}
	told := func() *provenance.Request {
		return p.request("g", frontend.Request{Inputs: map[string]*pb.Definition{"in": def, "plain": graphOf(t, "y"), "nothing": {}, "nil": nil}}).Inputs["in"]
	}
	if told() != nil {
		t.Error("a graph that nobody made has a producer")
	}
	p.made1(t, one, def, ask("a"))
	if got := told(); got == nil || got.Args["a"] != "a" {
		t.Errorf("got %+v", got)
	}
	p.made1(t, two, def, ask("a"))
	if told() == nil {
		t.Error("two builds that asked for the same are at odds")
	}
	p.made1(t, two, def, ask("b"))
	if got := told(); got != nil {
		t.Errorf("of two requests one is told: %+v", got)
	}
	p.forget(two)
	if told() == nil {
		t.Error("the other build's end is not seen")
	}
	p.forget(one)
	if told() != nil || len(p.made) != 0 {
		t.Errorf("builds that ended are remembered: %v", p.made)
	}
}

// Each step uses the one before it twice.
func TestInputsOfInputsStaySmall(t *testing.T) {
	t.Parallel()
	p, b := newProducers(), &build{}
	def := graphOf(t, "0")
	p.made1(t, b, def, &provenance.Request{Frontend: "f", Args: map[string]string{"a": strings.Repeat("x", 1000)}})
	for i := range 40 {
		r := p.request("f", frontend.Request{Inputs: map[string]*pb.Definition{"one": def, "two": def}})
		if n := weight(r); n > maxToldInputs+1000 {
			t.Fatalf("step %d: %d bytes are told", i, n)
		}
		def = graphOf(t, strconv.Itoa(i+1))
		p.made1(t, b, def, r)
	}
}

func FuzzOutputOf(f *testing.F) {
	f.Add([]byte{})
	op, err := (&pb.Op{Inputs: []*pb.Input{{Digest: "sha256:x"}}}).MarshalVT()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(op)
	f.Fuzz(func(t *testing.T, b []byte) {
		if out, ok := outputOf(&pb.Definition{Def: [][]byte{b}}); !ok && out != (output{}) {
			t.Errorf("got %+v", out)
		}
	})
}

func FuzzGrant(f *testing.F) {
	e := &Engine{entitlements: []string{"network.host", "device"}}
	for _, s := range []string{"network.host", "device", "device=", "device=a.com/b=c", "device=x,alias=y", "device=\n", "device=\"", "device=,", "security.insecure", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		g, err := e.grant([]string{text})
		if err == nil && (len(g.names) != 1 || strings.HasPrefix(text, "device") != (g.devices != nil)) {
			t.Errorf("%q: %+v", text, g)
		}
	})
}

func TestRequestOfTheBuiltInFrontend(t *testing.T) {
	p := newProducers()
	for _, c := range []struct {
		opts map[string]string
		want string
	}{
		{map[string]string{"source": "dockerfile.v0"}, "dockerfile.v0"},
		{map[string]string{"source": "dockerfile.v0", "context:dockerfile.v0::linux/amd64": "docker-image://x"}, "gateway.v0"},
		{map[string]string{"source": "docker/dockerfile:1"}, "gateway.v0"},
	} {
		got := p.request("gateway.v0", frontend.Request{Opts: c.opts})
		if _, told := got.Args["source"]; got.Frontend != c.want || told != (c.want == "gateway.v0") || c.opts["source"] == "" {
			t.Errorf("%v: %+v", c.opts, got)
		}
	}
}
