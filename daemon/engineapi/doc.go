// Package engineapi serves the Docker Engine API over the engine: the door of docker and buildx. Paths may carry a version
// prefix; errors are JSON objects with a message.
package engineapi
