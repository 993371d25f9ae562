// Package layers is the layer store: where the bytes of builds live.
//
// A layer is an immutable set of changes to a file system, independent of the layers it is used on. A [Ref] is one owner's
// hold on a stack of layers, bottom first; what is held is never collected. A layer is read in user space with [Store.Tree],
// and mounted only by [Store.Compose], which alone knows how it is realised on this host.
//
// There are three kinds of layer. A blob is one file that holds the exact tar and can be mounted as it lies; its id is its
// diffID. A directory is what a step left behind in its [Upper]; [Store.Solidify] packs it into a blob when somebody needs its
// bytes, and it keeps its id. A remote layer is known by name, and becomes a blob when it is fetched.
//
// # The index, and who may go
//
// The index is in memory, under one lock, and written to one database behind the builds' backs. Look-up and pin are one step
// under that lock; so are the collector's last look and the renaming away of what it removes. So a pin always wins, and what
// was found stays. Deleting itself happens in the background, in the trash directory.
//
// # What survives what
//
// Nothing half-written is ever visible under a final name: files are written under tmp and renamed when whole and verified. A
// killed process loses at most the index entries of its last moments, whose bytes are thrown away at the next start together
// with uppers, mounts and temporary files. Writing to the disk is begun at once but not waited for, since a sync waits for all
// that anyone has written. Instead a record says in which boot its bytes were written until they are known to be on stable
// storage, and after a reboot a layer that may have been torn is a miss. [Store.Hold] and [Store.Close] do wait, so what an
// image holds survives a power cut from the moment Hold returns.
//
// # Order of locks
//
// Store.mu comes before the locks of the journal and the trash, and is never held while one of the others is waited for: the
// writers' and chains' keyed locks, and the flights, are taken before it. A flight holds its layers itself and waits for
// downloads slots and the writer's lock of its own diffID only, so two flights never wait for each other.
package layers
