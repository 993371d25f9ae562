// Package daemon is the engine put together: the layer store, the cache, the solver, sources, frontends and exporters, and the
// one [Request] that every door maps its builds to.
//
// A door (package control for BuildKit's gRPC API, package engineapi for Docker's REST API) calls [Engine.Build] and follows
// [Engine.Progress]. Here, and in the commands, are the only places where concrete types meet.
package daemon
