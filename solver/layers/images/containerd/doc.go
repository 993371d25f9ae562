// Package containerd keeps images in a containerd that is running: a backing for the image store, reached over containerd's
// socket. What is built appears there for its other users, and what they pull can be built from.
//
// Calls that fail because containerd does not answer are repeated for a while, so that a restart of containerd is a pause and no
// failure: reads go on where they were, and so does writing, since containerd keeps what it has taken of a blob. After that
// they fail with an error that says so.
//
// Only services that containerd 1.6 has are used.
package containerd
