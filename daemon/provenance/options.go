package provenance

import (
	"cmp"
	"fmt"
	"path"
	"strconv"
)

// Predicate types.
const (
	TypeV1  = "https://slsa.dev/provenance/v1"
	TypeV02 = "https://slsa.dev/provenance/v0.2"
)

// Options say what provenance tells and where it is put.
type Options struct {
	// V02 chooses version 0.2 over 1.
	V02 bool
	// Max adds arguments, secrets' ids, the steps and their sources to what is told.
	Max bool
	// BuilderID names who runs the builder, an URL; may be empty.
	BuilderID string
	// Reproducible is the client's own claim.
	Reproducible bool
	// InlineOnly keeps provenance out of outputs other than images.
	InlineOnly bool
	// CompleteMaterials fails a build that used what cannot be named.
	CompleteMaterials bool
	// Filename is what the predicate is called in outputs of files.
	Filename string
}

// ParseOptions reads the attributes of the attestation "provenance". Attributes nobody knows are no error: clients send those of
// later engines.
func ParseOptions(a map[string]string) (o Options, err error) {
	switch v := cmp.Or(a["version"], "v1"); v {
	case "v1":
	case "v0.2":
		o.V02 = true
	default:
		return o, fmt.Errorf("invalid provenance SLSA version: %s", v)
	}
	switch v := cmp.Or(a["mode"], "max"); v {
	case "max", "full":
		o.Max = true
	case "min":
	default:
		return o, fmt.Errorf("invalid mode %q", v)
	}
	for key, to := range map[string]*bool{
		"reproducible": &o.Reproducible, "inline-only": &o.InlineOnly, "complete-materials": &o.CompleteMaterials,
	} {
		v, ok := a[key]
		if !ok {
			continue
		}
		if *to, err = strconv.ParseBool(v); err != nil {
			return o, fmt.Errorf("failed to parse %s flag %q", key, v)
		}
	}
	o.BuilderID = a["builder-id"]
	o.Filename = cmp.Or(a["filename"], "provenance.json")
	if o.Filename != path.Base(o.Filename) || o.Filename == "." || o.Filename == ".." {
		return o, fmt.Errorf("invalid filename %q for provenance: it must be a name without directory", o.Filename)
	}
	return o, nil
}

// Type is that of the predicate.
func (o Options) Type() string {
	if o.V02 {
		return TypeV02
	}
	return TypeV1
}
