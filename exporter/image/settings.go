package image

import (
	"errors"

	"github.com/slipwaybuild/slipway/exporter/attrs"
	"github.com/slipwaybuild/slipway/exporter/compression"
	"github.com/slipwaybuild/slipway/exporter/manifest"
)

// settings are the attributes of the output. Attributes nobody knows are no error: clients send those of other engines.
type settings struct {
	names             attrs.Names
	push, byDigest    bool
	insecure          bool
	store             bool
	canonical         bool
	unpack            bool
	danglingPrefix    string
	danglingEmptyOnly bool
	manifest          manifest.Options

	// incomplete leaves layers of registries there even if others read the store.
	incomplete bool
}

func parse(a map[string]string) (s settings, err error) {
	s.danglingPrefix = a["dangling-name-prefix"]
	if s.incomplete, err = attrs.Bool(a, "store-allow-incomplete", false); err != nil {
		return s, err
	}
	if s.names, err = attrs.ParseNames(a); err != nil {
		return s, err
	}
	for key, to := range map[string]struct {
		value    *bool
		fallback bool
	}{
		"push":              {&s.push, false},
		"push-by-digest":    {&s.byDigest, false},
		"registry.insecure": {&s.insecure, false},
		"store":             {&s.store, true},
		"name-canonical":    {&s.canonical, false},
		"unpack":            {&s.unpack, false},
		// The misspelling is the wire's.
		"danging-name-empty-only": {&s.danglingEmptyOnly, false},
	} {
		if *to.value, err = attrs.Bool(a, key, to.fallback); err != nil {
			return s, err
		}
	}
	// Nobody reads a compressed layer before it leaves this host.
	fallback := compression.Uncompressed
	if s.push {
		fallback = compression.Gzip
	}
	s.manifest, err = manifest.ParseOptions(a, fallback)
	if err == nil && s.unpack && s.manifest.RewriteTimes {
		return s, errors.New(`exporter option "rewrite-timestamp" conflicts with "unpack"`)
	}
	// What the registry has stays there.
	s.manifest.KeepRemote = true
	s.manifest.Attest.Inline = true
	return s, err
}
