// Package request turns the flags of a build into what goes to the daemon: the solve request, and what the session offers.
package request
