// Package ops turns LLB, BuildKit's build graph language, into vertices for the solver, and does the work of each.
//
// A definition is a list of marshalled ops and metadata. A [Loader] belongs to one build and loads any number of
// definitions; a vertex that several of them share is one vertex. The [Factory] makes loaders and holds what all ops need of
// the engine: the layer store, an executor, sources.
//
// Results are holds on stacks of layers, see [RefOf].
package ops
