package config

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/agext/levenshtein"
)

// foreign lists the keys of buildkitd.toml that have no meaning here; "*" stands for one name, and a key also covers the
// tables below it.
var foreign = []string{
	"proxyNetwork", "provenanceEnvDir", "otel", "cdi", "cache", "compaction",
	"grpc.debugAddress", "grpc.securityDescriptor", "grpc.tls",
	"worker.containerd",
	"worker.oci.enabled", "worker.oci.rootless", "worker.oci.noProcessSandbox", "worker.oci.minFreeSpace", "worker.oci.gcpolicy",
	"worker.oci.cniConfigPath", "worker.oci.cniBinaryPath", "worker.oci.cniPoolSize", "worker.oci.bridgeName", "worker.oci.bridgeSubnet",
	"worker.oci.userRemapUnsupported", "worker.oci.proxySnapshotterPath", "worker.oci.stargzSnapshotter", "worker.oci.selinux",
	"system.platformsCacheMaxAge", "system.sessionAuthTimeout",
}

// meaningless tells whether buildkitd knows a key that we do not use.
func meaningless(key toml.Key) bool {
	name := key.String()
	for _, k := range foreign {
		if name == k || strings.HasPrefix(name, k+".") {
			return true
		}
	}
	return false
}

// unknownKey is the error for a key that nobody knows.
func unknownKey(key toml.Key) error {
	name := key.String()
	best, distance := "", len(name)
	for _, known := range append(knownKeys(reflect.TypeFor[Config](), nil), foreign...) {
		if d := levenshtein.Distance(name, known, nil); d < distance {
			best, distance = known, d
		}
	}
	if best == "" || distance > max(2, len(name)/2) {
		return fmt.Errorf("unknown key %s", name)
	}
	return fmt.Errorf("unknown key %s, did you mean %s?", name, best)
}

// knownKeys lists the dotted keys of a configuration struct.
func knownKeys(t reflect.Type, prefix toml.Key) []string {
	var keys []string
	for i := range t.NumField() {
		f := t.Field(i)
		key := append(append(toml.Key{}, prefix...), f.Tag.Get("toml"))
		keys = append(keys, key.String())
		if f.Type.Kind() == reflect.Struct {
			keys = append(keys, knownKeys(f.Type, key)...)
		}
	}
	return keys
}
