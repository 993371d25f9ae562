// Package control serves BuildKit's Control service (moby.buildkit.v1.Control) over the engine: the door of buildctl, buildx
// and our own command. It converts between the wire and the engine's values, and decides nothing.
package control
