package config

// Containerd is the containerd that keeps images and their content. Steps are run by the OCI worker all the same.
type Containerd struct {
	// Enabled must be true for the rest to mean anything.
	Enabled *bool `toml:"enabled"`
	// Address is its socket, a path with or without "unix://"; empty is /run/containerd/containerd.sock.
	Address string `toml:"address"`
	// Namespace is its own; empty is "buildkit".
	Namespace string `toml:"namespace"`
	// Snapshotter is what images are unpacked for; empty is containerd's default.
	Snapshotter string `toml:"snapshotter"`
}

// On tells whether containerd is used.
func (c Containerd) On() bool { return c.Enabled != nil && *c.Enabled }

// Undecided tells that there is a configuration which does not say whether to use it.
func (c Containerd) Undecided() bool { return c.Enabled == nil && c != (Containerd{}) }
