// Package manifest reads what an image reference leads to: an index, the manifest in it that fits a platform, and the manifest's
// config. All of it is foreign and is checked before it is used; none of it brings a layer.
package manifest
