// Package engineapi serves the Docker Engine API over the engine: the door of docker and buildx. Paths may carry a version
// prefix; errors are JSON objects with a message.
//
// A [New] handler is a table of routes (api.go), each with a [handler] in the file of its resource. What handlers have in common is
// in a file of its own: versions (version.go), errors and their statuses (errors.go), answers of many messages (stream.go),
// parameters and filters (params.go). What they need of the engine is asked for by the interfaces of engine.go.
package engineapi
