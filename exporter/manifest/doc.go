// Package manifest makes images of what builds gave: configs, manifests and an index around layers that are already there. It
// stores nothing but compressed layers; the image store and the archives write the rest, each in its own way.
//
// A *config* is the frontend's, with the layers and their history put in. A *blob* is any piece of content: a layer, a config,
// a manifest or an index. The same input and options give the same digests.
package manifest
