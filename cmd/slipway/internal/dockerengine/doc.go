// Package dockerengine is a client of Docker's Engine API, as much of it as a build needs: POST /build with the builder that works by
// session, the upload and the cancelling that belong to it, and a ping to learn who answers. The session itself is the caller's, over
// another connection of the same daemon.
package dockerengine
