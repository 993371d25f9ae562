// Package oci serves oci-layout:// identifiers: images that lie in a content store of the client, an OCI layout directory as a
// rule, and are read from there through the session. Layers are lazy, as those of registries are.
package oci
