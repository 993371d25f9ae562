package progress

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	digest "github.com/opencontainers/go-digest"
)

// The encoding of events, used in journals and wherever a writer's past is kept for those who join late:
//
//	entry  = size payload         size is an unsigned varint, the length of payload
//	payload = kind body           kind is one byte
//
// Logs are most of what is written, so their body is binary and their bytes stand as they came: vertex id (varint length,
// text), stream (one byte), time (varint, Unix nanoseconds), data to the end. Every other event is JSON: few, small, and
// readable in a hex dump; fields may be added without a new format.
const (
	kindLog   byte = 'L'
	kindEvent byte = 'J'
	kindEnd   byte = 'E' // of a journal that was closed; no body
)

// maxLog is how many bytes of output one entry holds; longer output becomes several events.
const maxLog = 1 << 20

// maxEntry bounds what is believed of a size read back.
const maxEntry = 1 << 30

var errCorrupt = errors.New("corrupt entry")

// appendEvent appends the entries of ev to buf.
func appendEvent(buf []byte, ev Event) ([]byte, error) {
	if ev.Log != nil {
		return appendLog(buf, ev.Log), nil
	}
	body, err := json.Marshal(ev)
	if err != nil {
		return buf, fmt.Errorf("encode event: %w", err)
	}
	buf = binary.AppendUvarint(buf, uint64(len(body))+1)
	buf = append(buf, kindEvent)
	return append(buf, body...), nil
}

func appendLog(buf []byte, l *Log) []byte {
	for data := l.Data; ; {
		part := data[:min(len(data), maxLog)]
		data = data[len(part):]
		head := binary.AppendUvarint(nil, uint64(len(l.Vertex)))
		head = append(head, l.Vertex...)
		head = append(head, byte(l.Stream))
		head = binary.AppendVarint(head, l.Timestamp.UnixNano())
		buf = binary.AppendUvarint(buf, uint64(1+len(head)+len(part)))
		buf = append(buf, kindLog)
		buf = append(buf, head...)
		buf = append(buf, part...)
		if len(data) == 0 {
			return buf
		}
	}
}

func appendEnd(buf []byte) []byte { return append(buf, 1, kindEnd) }

// decodeEvent reads one payload, of which the event keeps parts. The end of a journal is an event without any field.
func decodeEvent(payload []byte) (Event, error) {
	if len(payload) == 0 {
		return Event{}, errCorrupt
	}
	kind, body := payload[0], payload[1:]
	switch kind {
	case kindLog:
		return decodeLog(body)
	case kindEvent:
		var ev Event
		if err := json.Unmarshal(body, &ev); err != nil {
			return Event{}, fmt.Errorf("%w: %w", errCorrupt, err)
		}
		if ev == (Event{}) {
			return Event{}, fmt.Errorf("%w: empty event", errCorrupt)
		}
		return ev, nil
	case kindEnd:
		return Event{}, nil
	default:
		return Event{}, fmt.Errorf("%w: unknown kind %#x", errCorrupt, kind)
	}
}

func decodeLog(body []byte) (Event, error) {
	size, n := binary.Uvarint(body)
	if n <= 0 || size > uint64(len(body)-n) {
		return Event{}, errCorrupt
	}
	vertex, body := body[n:n+int(size)], body[n+int(size):]
	if len(body) == 0 {
		return Event{}, errCorrupt
	}
	stream, body := body[0], body[1:]
	nanos, n := binary.Varint(body)
	if n <= 0 {
		return Event{}, errCorrupt
	}
	return Event{Log: &Log{
		Vertex:    digest.Digest(vertex),
		Stream:    int(stream),
		Data:      body[n:],
		Timestamp: time.Unix(0, nanos).UTC(),
	}}, nil
}
