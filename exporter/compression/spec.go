// Package compression makes compressed blobs of layers, once each: what was compressed before is found again in the content
// store while it is there. The bytes depend on the layer, the type and the level alone, not on the number of cores.
package compression

import (
	"compress/gzip"
	"fmt"
	"io"
	"strconv"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Type is how a layer is compressed.
type Type string

// The types.
const (
	Uncompressed Type = "uncompressed"
	Gzip         Type = "gzip"
	Zstd         Type = "zstd"
	// EStargz is gzip in which single files can be found (containerd's stargz-snapshotter).
	EStargz Type = "estargz"
)

// blockSize is what pgzip compresses at a time, and workers how many blocks at once. The former is part of the bytes: changing
// it changes digests.
const (
	blockSize = 1 << 20
	workers   = 4
)

// Spec is what to compress to. Level is the type's own; DefaultLevel leaves it to the type.
type Spec struct {
	Type  Type
	Level int
}

// DefaultLevel is the type's own choice.
const DefaultLevel = -1

// Parse reads the attributes compression and compression-level.
func Parse(name, level string, fallback Type) (Spec, error) {
	s := Spec{Type: fallback, Level: DefaultLevel}
	switch name {
	case "":
	case "uncompressed", "none":
		s.Type = Uncompressed
	case "gzip":
		s.Type = Gzip
	case "zstd":
		s.Type = Zstd
	case "estargz":
		s.Type = EStargz
	default:
		return s, fmt.Errorf("unsupported layer compression type %q", name)
	}
	if level == "" {
		return s, nil
	}
	n, err := strconv.Atoi(level)
	if err != nil {
		return s, fmt.Errorf("non-integer value for compression-level: %q", level)
	}
	most := map[Type]int{Gzip: gzip.BestCompression, EStargz: gzip.BestCompression, Zstd: 22}[s.Type]
	if n < 0 || n > most && s.Type != Uncompressed {
		return s, fmt.Errorf("compression-level %d is not from 0 to %d for %s", n, most, s.Type)
	}
	s.Level = n
	return s, nil
}

// MediaType is that of a layer compressed this way, in OCI's terms or in Docker's, which have no eStargz.
func (t Type) MediaType(oci bool) (string, error) {
	switch {
	case t == Uncompressed && oci:
		return ocispecs.MediaTypeImageLayer, nil
	case (t == Gzip || t == EStargz) && oci:
		return ocispecs.MediaTypeImageLayerGzip, nil
	case t == Zstd && oci:
		return ocispecs.MediaTypeImageLayerZstd, nil
	case t == Uncompressed:
		return images.MediaTypeDockerSchema2Layer, nil
	case t == Gzip:
		return images.MediaTypeDockerSchema2LayerGzip, nil
	case t == Zstd:
		return images.MediaTypeDockerSchema2LayerZstd, nil
	}
	return "", fmt.Errorf("compression %s needs OCI media types", t)
}

// key names everything that the bytes depend on.
func (s Spec) key(diffID digest.Digest) string {
	return fmt.Sprintf("%s/%s/%d/%d", diffID, s.Type, s.Level, blockSize)
}

// writer returns the compressor over w. It has goroutines, which end with Close.
func (s Spec) writer(w io.Writer) (io.WriteCloser, error) {
	switch s.Type {
	case Gzip:
		level := s.Level
		if level == DefaultLevel {
			level = gzip.DefaultCompression
		}
		z, err := pgzip.NewWriterLevel(w, level)
		if err != nil {
			return nil, err
		}
		// Blocks of one size whatever the number of cores, so that the bytes are the same everywhere.
		return z, z.SetConcurrency(blockSize, workers)
	case EStargz:
		level := s.Level
		if level == DefaultLevel {
			level = gzip.DefaultCompression
		}
		return newStargz(w, level), nil
	case Zstd:
		level := zstd.SpeedDefault
		if s.Level != DefaultLevel {
			level = zstd.EncoderLevelFromZstd(s.Level)
		}
		// More than one makes it read, compress and write at the same time; the bytes are those of one stream.
		return zstd.NewWriter(w, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(2), zstd.WithZeroFrames(true))
	}
	return nil, fmt.Errorf("nothing compresses with %s", s.Type)
}
