// Package ssh lets a step use the ssh keys of a client without ever having them.
//
// A client forwards agents under ids: the agent behind a socket, or one of its own that holds the keys of some files. A forwarded agent is
// read-only: it lists keys and signs with them, and refuses everything else. A raw forward is any unix socket, passed through
// as it is. The daemon reaches them by id ([Check], [Dial]) and puts a socket into the step.
package ssh
