// Package history remembers builds: those that run, and those that ended, also when the daemon was ended or killed since.
//
// Of a build there is a journal (its story, see package progress), which [Store.Follow] reads from the beginning whenever it is
// asked; and once it has ended a record, in the words of BuildKit's API, with blobs beside it that clients read by digest: the
// log, the error with its details, the trace, attestations and the manifests of results.
//
//	history.db   records, and the blobs of each
//	notes/       records that are about to go there: a build's end does not wait for the disk
//	running/     one file per build that runs, for the case that its daemon dies
//	journals/    one file per build
//	blobs/       a content store
//
// Records that are neither pinned nor among the newest are forgotten when they are old. Nothing here polls, and nobody who
// watches is waited for.
package history
