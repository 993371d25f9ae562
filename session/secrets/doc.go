// Package secrets carries secrets from a client to the step that mounts them.
//
// A secret has an id and a value of at most [MaxSize] bytes. The client keeps a [Store] of them and offers it on its session
// ([New], [FromStore]); the daemon asks by id ([Get]) when a step starts. Values are in no log and no error.
package secrets
