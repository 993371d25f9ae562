// Package images is the local image store: what `docker images` would list.
//
// An image is a name and the descriptor of its target, a manifest or an index. Manifests, configs and compressed layers are
// content, kept by digest in containerd's local content store; names and leases are kept in containerd's metadata database
// beside it. The file systems of images are kept by the layer store: an image that is in the store holds its layers there
// under the owner "image:<digest of the target>", once however many names it has.
//
// An image whose last name was taken by another one is dangling: it stays, under the name that [Dangling] gives it, until
// someone deletes it.
//
// A manifest may list a layer uncompressed. The bytes of such a layer are not stored a second time: [Store.Provider] reads
// them from the layer store.
package images
