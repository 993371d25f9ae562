// Package imageservice is what clients do with local images, apart from building them: list, look at, name, remove, save, load, pull,
// push. It knows nothing of HTTP; [Service] works on the image store, the layer store and registries, and tells of progress by
// [Update].
//
// An image's id is the digest of its target, a manifest or an index, as in Docker with containerd's image store. Images are found by
// name, by id, by the digest of a config or manifest in them, and by unique beginnings of those, since builds tell docker's clients
// the config's digest.
//
// Layers that were built here are stored uncompressed and named so by their manifest. A push compresses them, so what a registry has
// may have another digest than the image here; [Summary].Digests and push's answer tell the registry's.
package imageservice
