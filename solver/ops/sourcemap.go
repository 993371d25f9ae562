package ops

import (
	"fmt"

	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver"
)

// Location is where in a file a step was written.
type Location struct {
	Info   *pb.SourceInfo
	Ranges []*pb.Range
}

// Locations says where the step with this id was written, as the frontend tells; empty if it did not.
func (g *Graph) Locations(step digest.Digest) []Location {
	var out []Location
	for _, l := range g.source.GetLocations()[string(step)].GetLocations() {
		out = append(out, Location{Info: g.source.Infos[l.SourceIndex], Ranges: l.Ranges})
	}
	return out
}

// Source is the definition's own mapping from steps to files; nil if it has none. It must not be changed.
func (g *Graph) Source() *pb.Source { return g.source }

// checkSource makes sure that a mapping only points to files it has.
func checkSource(src *pb.Source) error {
	for step, locs := range src.GetLocations() {
		if locs == nil {
			return fmt.Errorf("source locations of %s are empty", step)
		}
		for i, l := range locs.Locations {
			if l == nil {
				return fmt.Errorf("source location %d of %s is empty", i, step)
			}
			if l.SourceIndex < 0 || int(l.SourceIndex) >= len(src.Infos) {
				return fmt.Errorf("source location %d of %s is in file %d, there are %d", i, step, l.SourceIndex, len(src.Infos))
			}
		}
	}
	for i, info := range src.GetInfos() {
		if info == nil {
			return fmt.Errorf("source file %d is empty", i)
		}
	}
	return nil
}

// UserLocations says where the first step was written that has a place and uses v, directly or through others.
func (g *Graph) UserLocations(v *solver.Vertex) []Location {
	users := map[*solver.Vertex][]*solver.Vertex{}
	seen := map[*solver.Vertex]bool{}
	for todo := []*solver.Vertex{g.edge.Vertex}; len(todo) > 0; {
		u := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if u == nil || seen[u] {
			continue
		}
		seen[u] = true
		for _, in := range u.Inputs {
			users[in.Vertex] = append(users[in.Vertex], u)
			todo = append(todo, in.Vertex)
		}
	}
	clear(seen)
	for todo := []*solver.Vertex{v}; len(todo) > 0; todo = todo[1:] {
		if list := g.Locations(todo[0].ID); len(list) > 0 {
			return list
		}
		for _, u := range users[todo[0]] {
			if !seen[u] {
				seen[u] = true
				todo = append(todo, u)
			}
		}
	}
	return nil
}
