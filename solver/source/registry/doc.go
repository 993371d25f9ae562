// Package registry talks to image registries.
//
// A [Registry] is the process's knowledge of registries: how hosts are configured, connections, which challenge a host answers
// with, and the tokens it gave. A [Resolver] is a registry seen through the sessions of whoever waits now; it pulls and pushes
// with their credentials and nobody else's.
//
// A credential has an identity. Where the client can sign for its credential (a token authority), the identity is the key it
// signed with, the client fetches tokens itself, and its password never leaves it. Where it cannot, the client is asked for the
// credential and the identity is a keyed hash of it. Without session, or without credential, the identity is anonymous; a client that signs as
// nobody is anonymous alone, since it may have accounts for some repositories. A token
// is cached by host, realm, service, scope and identity, so a session gets a cached token only after it has shown that it
// could have got one itself.
package registry
