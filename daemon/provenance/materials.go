package provenance

import (
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	"github.com/moby/buildkit/util/purl"
	digest "github.com/opencontainers/go-digest"
	packageurl "github.com/package-url/packageurl-go"
)

// material is one thing that was used: a resolved dependency, in the words of SLSA v1.
type material struct {
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest,omitempty"`
}

func (c *Capture) materials() ([]material, error) {
	var list []material
	for _, i := range c.Images {
		kind := packageurl.TypeDocker
		if i.Layout {
			kind = packageurl.TypeOCI
		}
		uri, err := purl.RefToPURL(kind, i.Ref, i.Platform)
		if err != nil {
			return nil, fmt.Errorf("name image %q: %w", i.Ref, err)
		}
		if i.Blob {
			sep := "?"
			if strings.Contains(uri, "?") {
				sep = "&"
			}
			uri += sep + "ref_type=blob"
		}
		list = append(list, material{URI: uri, Digest: digestSet(i.Digest)})
	}
	for _, g := range c.Gits {
		list = append(list, material{URI: g.URL, Digest: commitSet(g.Commit)})
	}
	for _, f := range c.Files {
		list = append(list, material{URI: f.URL, Digest: digestSet(f.Digest)})
	}
	return list, nil
}

func digestSet(d digest.Digest) map[string]string {
	if d.Validate() != nil {
		return nil
	}
	return map[string]string{d.Algorithm().String(): d.Encoded()}
}

// commitSet names a commit by the algorithm of its length.
func commitSet(commit string) map[string]string {
	switch len(commit) {
	case 0:
		return nil
	case 64:
		return map[string]string{"sha256": commit}
	}
	return map[string]string{"sha1": commit}
}

// source finds what a context given as an URL turned out to be; false if it is none of what was used.
func (c *Capture) source(uri string) (configSource, bool) {
	config, plain := uri, uri
	if formatted, ok := dfgitutil.FragmentFormat(uri, true); ok {
		config = formatted
		plain, _ = dfgitutil.FragmentFormat(uri, false)
	}
	plain = redact(plain)
	for _, g := range c.Gits {
		if g.URL == plain {
			return configSource{URI: redact(config), Digest: commitSet(g.Commit)}, true
		}
	}
	for _, f := range c.Files {
		if f.URL == plain {
			return configSource{URI: f.URL, Digest: digestSet(f.Digest)}, true
		}
	}
	return configSource{}, false
}
