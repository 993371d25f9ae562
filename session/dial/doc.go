// Package dial opens the connection that a session is served on, in the two ways that daemons offer: an HTTP request that is
// upgraded ([HTTP], Docker's way), and a stream of BuildKit's Control service ([Control]). [ServeControl] is the daemon's half of
// the second; the first one's is session.Manager.HandleHTTP.
package dial
