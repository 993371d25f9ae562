// Package image serves docker-image:// identifiers: images in registries and in the local image store.
//
// To resolve a reference is to find out what its name means now, the root; to read an image is to follow the root to the manifest
// for a platform and its config, which are kept as content. Neither brings a layer: layers are lazy, and brought by whoever needs
// their bytes through a [Source.Fetcher].
//
// A name is resolved for some sessions, with their credentials, and the answer is shared only among callers with the same
// sessions. What is named by digest may come from the content store without asking anybody.
package image
