// Package dockerhost finds Docker's daemon as docker's own command does, and opens connections to it: a host of the command line or of
// DOCKER_HOST, or a context of docker's configuration, over unix sockets, TCP with and without TLS, and ssh.
//
// It never guesses: a caller asks for Docker's daemon, or gets none. What `docker context use` chose is docker's affair and not looked at.
package dockerhost
