package exporter

import (
	"fmt"
	"maps"
	"slices"
)

// Registry finds exporters by the type of an output. Fill it before it is used; after that it is safe for concurrent use.
type Registry struct {
	factories map[string]Factory
}

// NewRegistry returns an empty registry.
func NewRegistry() *Registry { return &Registry{factories: map[string]Factory{}} }

// Register adds a factory under one or more types, replacing what was there.
func (r *Registry) Register(f Factory, types ...string) {
	for _, t := range types {
		r.factories[t] = f
	}
}

// Types lists what can be asked for, sorted.
func (r *Registry) Types() []string { return slices.Sorted(maps.Keys(r.factories)) }

// New makes the exporter of one output; id is its number in the request. It refuses types nobody registered and attributes
// that make no sense.
func (r *Registry) New(typ string, id int, attrs map[string]string) (Exporter, error) {
	f, ok := r.factories[typ]
	if !ok {
		return nil, fmt.Errorf("exporter %q could not be found", typ)
	}
	x, err := f(id, attrs)
	if err != nil {
		return nil, fmt.Errorf("output %s: %w", typ, err)
	}
	return x, nil
}
