package samehost

import (
	"context"
	"net"
)

// Source is a directory that a client lets the daemon read.
type Source struct {
	// Path is on the client's host.
	Path string
	// ResetOwner makes every entry root's, as docker does for a build context.
	ResetOwner bool
}

// Target is where a client lets the daemon write one export. Exactly one of Dir and Open is set.
type Target struct {
	// Dir is a directory to write a tree into; it is made if missing.
	Dir string
	// KeepOwner and Delete are as package filesync has them.
	KeepOwner, Delete bool
	// Open opens the file of a stream; nil and no error says that the client has it already. End is called once, when the daemon
	// has written all of it (nil) or gave up; its error is the export's.
	Open func(about map[string]string) (File, error)
}

// File is an open file that another process may write to.
type File interface {
	// Control gives the descriptor to f while it is certainly open.
	Control(f func(fd uintptr)) error
	// End publishes the file, or discards it if cause says that it is not whole, and closes it.
	End(cause error) error
}

// Offer is what a client lets the daemon do itself.
type Offer struct {
	Sources map[string]Source
	// Targets are by exporter id.
	Targets map[int]Target
	// Dial connects to the daemon. Where that is no unix socket, nothing is offered.
	Dial func(context.Context) (net.Conn, error)
}
