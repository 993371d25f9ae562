package resume

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

type kind byte

const (
	kindData  kind = 1
	kindAck   kind = 2
	kindClose kind = 3
)

const (
	headerSize = 13
	// maxPayload bounds the data of one frame, in bytes.
	maxPayload = 64 << 10
)

// errProtocol is a peer that does not keep to the protocol.
var errProtocol = errors.New("the peer breaks the protocol")

// header begins every frame.
type header struct {
	kind   kind
	offset uint64
	length int // of the data behind it, in bytes
}

// put writes the header to the beginning of b.
func (h header) put(b []byte) {
	b[0] = byte(h.kind)
	binary.BigEndian.PutUint64(b[1:], h.offset)
	binary.BigEndian.PutUint32(b[9:], uint32(h.length))
}

// readHeader reads a header and refuses one that cannot be.
func readHeader(r io.Reader) (header, error) {
	var b [headerSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return header{}, err
	}
	length := binary.BigEndian.Uint32(b[9:])
	h := header{kind: kind(b[0]), offset: binary.BigEndian.Uint64(b[1:])}
	switch {
	case h.kind == kindData && length > 0 && length <= maxPayload:
	case (h.kind == kindAck || h.kind == kindClose) && length == 0:
	default:
		return header{}, fmt.Errorf("%w: frame of kind %d with %d bytes", errProtocol, h.kind, length)
	}
	h.length = int(length)
	return h, nil
}
