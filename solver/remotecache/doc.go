// Package remotecache reads and writes caches for other machines.
//
// A cache is a config beside layer blobs. The config has the form that BuildKit's has, media type [ConfigMediaType], so that registries
// and tools take it for what it is: a list of layers, and records that name layers. Each record carries besides, under "slipway", our
// own keys: the identity it is the result of, the promises that lead there, and the content digests that steps took of it. What BuildKit
// wrote has no such keys; its records cannot be understood here and are passed over.
//
// Where a cache is kept is a [Place]: a registry, a directory of the client, an object store. [Imports] reads places for one build, as
// [solver.Imports]: nothing is fetched before a look-up needs it, and layers stay where they are until a step reads them. [Exporter]
// writes to a place: only blobs that it lacks, and merged with what other builders wrote there.
//
// Where the bytes of a layer are, [layers.RemoteBlob] says in its Ref, which holds no credentials. A registry's is a plain reference,
// all others have a scheme; those that need credentials are served by the [Table] of what builds that run now have opened.
package remotecache
