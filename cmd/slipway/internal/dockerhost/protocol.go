package dockerhost

// protocol is what TLS may agree on: a connection becomes a session by HTTP/1.1's upgrade.
const protocol = "http/1.1"
