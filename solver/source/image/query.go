package image

import (
	"fmt"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Mode says whom to ask what a name means.
type Mode string

// The modes.
const (
	// Default asks the registry, and the image store when the registry cannot be reached.
	Default Mode = pb.AttrImageResolveModeDefault
	// Pull asks the registry.
	Pull Mode = pb.AttrImageResolveModeForcePull
	// Local asks the image store, and the registry when the image is not there.
	Local Mode = pb.AttrImageResolveModePreferLocal
)

// ParseMode reads a mode; "" is Default.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case "":
		return Default, nil
	case Default, Pull, Local:
		return m, nil
	}
	return "", fmt.Errorf("invalid image resolve mode %q", s)
}

// query is a question about an image. Equal questions have equal answers.
type query struct {
	ref      string // in full
	digest   digest.Digest
	mode     Mode
	checksum digest.Digest
	platform ocispecs.Platform
}

func newQuery(ref string, p ocispecs.Platform, m Mode) (query, error) {
	m, err := ParseMode(string(m))
	if err != nil {
		return query{}, err
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return query{}, fmt.Errorf("image name %.200q: %w", ref, err)
	}
	named = reference.TagNameOnly(named)
	q := query{ref: named.String(), mode: m, platform: platforms.Normalize(p)}
	if d, ok := named.(reference.Digested); ok {
		q.digest = d.Digest()
	}
	if p.OS == "" && p.Architecture == "" {
		q.platform = platforms.DefaultSpec()
	}
	return q, nil
}
