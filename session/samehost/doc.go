// Package samehost lets the daemon read and write a client's files itself, where both run on one machine.
//
// # How it is proved
//
// When the daemon needs a directory, it asks the client over the session, with a nonce that it has just made up. The client
// opens the directory, connects to the daemon's unix socket anew, has that connection upgraded (POST [Path]), and sends the nonce
// together with the descriptor. So the daemon knows that who sent the descriptor is who holds the session, and the kernel tells
// it who that is: user, groups, and whether root has root's powers. A descriptor cannot travel through a relay, so a client that is
// elsewhere cannot seem to be here.
//
// Whatever does not work out is no error: the daemon goes on over the session ([ErrUnavailable]), as it does with clients that do
// not offer the service, which are all but our own.
//
// # What the daemon may then do
//
// Just what the client could: every path is resolved on a thread that has the client's file system identity and capabilities, beneath the
// descriptor, and without following links. What the daemon itself may do besides is of no consequence.
package samehost
