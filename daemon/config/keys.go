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
	"proxyNetwork", "otel", "cache", "compaction", "grpc.securityDescriptor", "worker.containerd",
	"worker.oci.userRemapUnsupported", "worker.oci.proxySnapshotterPath", "worker.oci.stargzSnapshotter", "worker.oci.selinux", "worker.oci.noProcessSandbox",
	"system.sessionAuthTimeout",
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

// unknownKey is the warning about a key that nobody knows.
func unknownKey(key toml.Key) string {
	name := key.String()
	best, distance := "", len(name)
	for _, known := range append(Keys(), foreign...) {
		if d := levenshtein.Distance(name, known, nil); d < distance {
			best, distance = known, d
		}
	}
	if best == "" || distance > max(2, len(name)/2) {
		return fmt.Sprintf("unknown configuration key %s is ignored", name)
	}
	return fmt.Sprintf("unknown configuration key %s is ignored, did you mean %s?", name, best)
}

// Keys lists all keys there are, dotted. NAME stands for a name of the operator's choice, [] for each of a list.
func Keys() []string { return knownKeys(reflect.TypeFor[Config](), "") }

func knownKeys(t reflect.Type, prefix string) []string {
	var keys []string
	for i := range t.NumField() {
		f := t.Field(i)
		name := toml.Key{f.Tag.Get("toml")}.String()
		if prefix != "" {
			name = prefix + "." + name
		}
		ft := f.Type
		switch {
		case ft.Kind() == reflect.Map && ft.Elem().Kind() == reflect.Struct:
			name, ft = name+".NAME", ft.Elem()
		case ft.Kind() == reflect.Slice && ft.Elem().Kind() == reflect.Struct:
			name, ft = name+"[]", ft.Elem()
		}
		// A value is a struct too, but none with keys.
		if ft.Kind() == reflect.Struct && ft.NumField() > 0 && ft.Field(0).Tag.Get("toml") != "" {
			keys = append(keys, knownKeys(ft, name)...)
			continue
		}
		keys = append(keys, name)
	}
	return keys
}
