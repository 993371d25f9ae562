// Package auth lets the daemon use the registry accounts of a client.
//
// The client finds credentials as docker does, in its config.json and through credential helpers, and uses them itself: the
// daemon says which token a registry wants, the client fetches it and hands over the token. A token lasts minutes and opens what
// was asked for; a password lasts and opens everything, so it does not leave the client. There is one exception, since the wire
// has no other way: a registry that knows no tokens but wants the password with each request (HTTP basic authentication).
//
// # When a password is sent
//
// The daemon asks for credentials without saying why, so the client finds out for itself. It asks the registry, without
// credentials, how it authenticates ([Options.HTTPClient], GET /v2/). If that is by token, Credentials answers with none, which
// the daemon takes as "anonymous". If it is basic authentication, or if the registry cannot be reached from here and no token was ever fetched
// for it, Credentials answers with the password.
//
// The same question guards the other direction: a password is sent to a token server only if the registry names that server,
// or cannot be asked.
//
// # Token authorities
//
// A daemon may share work between clients only if each could have done it. A client proves that it has credentials for a host by
// signing with a key that is derived of a secret seed of its own and of the daemon's salt; see [TokenAuthority]. All sessions of one user have
// one key for a host, and two users never do.
package auth
