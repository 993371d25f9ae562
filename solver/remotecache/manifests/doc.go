// Package manifests keeps caches behind OCI manifests: in registries, and in directories of clients. A cache is an image manifest with
// the cache's config as its config, or an index that lists layers and config. Images with an inline cache in their config are read as
// well.
package manifests
