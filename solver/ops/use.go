package ops

import (
	"cmp"
	"maps"
	"slices"

	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/source"
)

// Use is what the steps of a graph take from outside of it. It names secrets and never holds one.
type Use struct {
	// Sources are those the graph begins with, each vertex once.
	Sources []SourceUse
	// Secrets and SSH are what steps may ask the client for, by id, sorted, each id once.
	Secrets, SSH []GrantUse
	// CacheMounts are the ids of cache mounts, sorted, each id once.
	CacheMounts []string
	// Network says that a step runs with a network.
	Network bool
	// Nested says that a step builds a definition found in its input, whose own use is not told here.
	Nested bool
}

// SourceUse is one source as it was asked for, and what that turned out to be.
type SourceUse struct {
	// Identifier is "scheme://rest", with whatever credentials the definition wrote into it.
	Identifier string
	Attrs      map[string]string
	Platform   ocispecs.Platform
	// Pin is a digest or a commit; empty if the source has no lasting name or was not looked at.
	Pin string
}

// GrantUse is a secret or an SSH agent that a step asks for.
type GrantUse struct {
	ID string
	// Optional says that no step fails without it.
	Optional bool
}

// Use tells what the graph takes from outside. Pins are there for the vertices that the solver has asked for, as it has for all of
// a graph whose result is there.
func (g *Graph) Use() Use {
	u := useWalk{secrets: map[string]bool{}, ssh: map[string]bool{}}
	seen := map[*solver.Vertex]bool{}
	todo := []*solver.Vertex{g.edge.Vertex}
	for len(todo) > 0 {
		v := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if v == nil || seen[v] {
			continue
		}
		seen[v] = true
		u.vertex(v)
		for _, in := range v.Inputs {
			todo = append(todo, in.Vertex)
		}
	}
	u.use.Secrets, u.use.SSH = grants(u.secrets), grants(u.ssh)
	slices.Sort(u.use.CacheMounts)
	u.use.CacheMounts = slices.Compact(u.use.CacheMounts)
	slices.SortFunc(u.use.Sources, func(a, b SourceUse) int { return cmp.Compare(a.Identifier, b.Identifier) })
	return u.use
}

// useWalk collects. The maps say whether all who ask for an id can do without.
type useWalk struct {
	use          Use
	secrets, ssh map[string]bool
}

func (u *useWalk) vertex(v *solver.Vertex) {
	switch op := v.Op.(type) {
	case *sourceOp:
		u.use.Sources = append(u.use.Sources, op.use())
		for _, key := range []string{pb.AttrAuthTokenSecret, pb.AttrAuthHeaderSecret, pb.AttrHTTPAuthHeaderSecret} {
			note(u.secrets, op.req.Attrs[key], true)
		}
		note(u.ssh, op.req.Attrs[pb.AttrMountSSHSock], true)
	case *execOp:
		u.exec(op.op)
	case *buildOp:
		u.use.Nested = true
	}
}

func (u *useWalk) exec(op *pb.ExecOp) {
	u.use.Network = u.use.Network || op.Network != pb.NetMode_NONE
	for _, m := range op.Mounts {
		switch m.MountType {
		case pb.MountType_SECRET:
			note(u.secrets, m.SecretOpt.GetID(), m.SecretOpt.GetOptional())
		case pb.MountType_SSH:
			note(u.ssh, cmp.Or(m.SSHOpt.GetID(), "default"), m.SSHOpt.GetOptional())
		case pb.MountType_CACHE:
			u.use.CacheMounts = append(u.use.CacheMounts, cacheID(m))
		}
	}
	for _, s := range op.Secretenv {
		note(u.secrets, s.GetID(), s.GetOptional())
	}
}

func note(in map[string]bool, id string, optional bool) {
	if id == "" {
		return
	}
	if before, ok := in[id]; ok {
		optional = optional && before
	}
	in[id] = optional
}

func grants(from map[string]bool) []GrantUse {
	var list []GrantUse
	for _, id := range slices.Sorted(maps.Keys(from)) {
		list = append(list, GrantUse{ID: id, Optional: from[id]})
	}
	return list
}

// use is what the op asked for and got.
func (s *sourceOp) use() SourceUse {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := SourceUse{Identifier: s.req.Identifier, Attrs: s.req.Attrs, Platform: s.req.Platform}
	if n, ok := s.pinned.(source.Named); ok {
		u.Pin = n.Name()
	}
	return u
}
