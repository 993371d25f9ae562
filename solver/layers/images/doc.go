// Package images is the local image store: what `docker images` would list.
//
// An image is a name and the descriptor of its target, a manifest or an index. Manifests, configs and compressed layers are
// content, kept by digest in a content store of containerd's; names and leases are kept beside it. All three are a [Backing]: the
// store's own, which is containerd's local store and metadata database in the store's directory, or a running containerd.
//
// In the former the file systems of images are kept by the layer store: an image that is in the store holds its layers there
// under the owner "image:<digest of the target>", once however many names it has. What others read as well must be whole without
// the layer store: there layers are content like the rest, put there by [Store.Bring], and the layer store is a cache of them.
//
// An image whose last name was taken by another one is dangling: it stays, under the name that [Dangling] gives it, until
// someone deletes it.
//
// A manifest may list a layer uncompressed. The bytes of such a layer are not stored a second time where nobody else reads them:
// [Store.Provider] reads them from the layer store.
package images
