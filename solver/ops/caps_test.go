package ops

import (
	"errors"
	"slices"
	"testing"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
)

// refused are the capabilities of LLB that are not served, and why.
var refused = map[string]string{
	"source.git.bundle":         "a git source refuses the attribute git.bundle",
	"source.git.checkoutbundle": "a git source refuses the attribute git.checkoutbundle",
	"exec.meta.network.proxy":   "Control.Solve refuses ProxyNetwork",
}

// unlisted are constants that BuildKit's clients send, and its list forgets.
var unlisted = []string{string(pb.CapExecMetaRemoveMountStubsRecursive), string(pb.CapFileCopyModeStringFormat)}

// Every capability that BuildKit's module knows is served or refused: an upgrade that brings one more must be looked at.
func TestEveryCapabilityIsDecided(t *testing.T) {
	var known []string
	for _, c := range pb.Caps.All() {
		known = append(known, c.ID)
		_, no := refused[c.ID]
		if yes := slices.Contains(Caps(), c.ID); yes == no {
			t.Errorf("%s: served %t, refused %t", c.ID, yes, no)
		}
	}
	for _, id := range slices.Concat(Caps(), keysOf(refused)) {
		if !slices.Contains(known, id) && !slices.Contains(unlisted, id) {
			t.Errorf("%s is unknown to BuildKit", id)
		}
	}
}

func keysOf(m map[string]string) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	return out
}

// An op that needs what is refused is not loaded, and the error names it.
func TestRefusedCapabilities(t *testing.T) {
	y := newYard(t, withFake)
	for id := range refused {
		def := define(t, mem("base").Run(llb.Args([]string{"x"})).Root())
		for _, md := range def.Metadata {
			md.Caps[id] = true
		}
		_, err := y.f.NewLoader(LoadOptions{}).Load(t.Context(), def)
		var missing *CapabilityError
		if !errors.As(err, &missing) || missing.ID != id {
			t.Errorf("%s: %v", id, err)
		}
	}
}
