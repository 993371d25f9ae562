// Package blob serves docker-image+blob:// and oci-layout+blob:// identifiers: single blobs of a registry's repository, or of a
// client's content store, each as a layer with one file. They are named by digest, so pinning them asks nobody.
package blob
