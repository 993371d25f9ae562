package dockerengine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	controlapi "github.com/moby/buildkit/api/services/control"
	"google.golang.org/protobuf/proto"
)

// Kinds of messages that say more than text.
const (
	idTrace = "moby.buildkit.trace"
	idImage = "moby.image.id"
)

// maxMessage bounds one message of an answer, in bytes: the output of a step comes in pieces far smaller.
const maxMessage = 32 << 20

// message is one JSON value of an answer.
type message struct {
	ID     string          `json:"id"`
	Aux    json.RawMessage `json:"aux"`
	Error  string          `json:"error"`
	Detail *struct {
		Message string `json:"message"`
	} `json:"errorDetail"`
}

// Failure is a build's own error, in the daemon's words.
type Failure struct{ Message string }

func (e *Failure) Error() string { return e.Message }

// readBuild reads the answer to POST /build to its end: the image's id, or a [*Failure], or that the answer makes no sense.
func readBuild(r io.Reader, show func(*controlapi.StatusResponse)) (image string, err error) {
	bounded := &io.LimitedReader{R: r}
	dec := json.NewDecoder(bounded)
	for {
		bounded.N = maxMessage
		var m message
		err := dec.Decode(&m)
		switch {
		case errors.Is(err, io.EOF) && bounded.N > 0:
			return image, nil
		case bounded.N <= 0:
			return "", fmt.Errorf("read the build's progress: a message of more than %d bytes", maxMessage)
		case err != nil:
			return "", fmt.Errorf("read the build's progress: %w", err)
		case m.Detail != nil && m.Detail.Message != "":
			return "", &Failure{m.Detail.Message}
		case m.Error != "":
			return "", &Failure{m.Error}
		}
		switch m.ID {
		case idTrace:
			s, err := trace(m.Aux)
			if err != nil {
				return "", fmt.Errorf("read the build's progress: %w", err)
			}
			show(s)
		case idImage:
			var about struct{ ID string }
			if err := json.Unmarshal(m.Aux, &about); err != nil {
				return "", fmt.Errorf("read the image's id: %w", err)
			}
			image = about.ID
		}
	}
}

func trace(aux json.RawMessage) (*controlapi.StatusResponse, error) {
	var b []byte
	if err := json.Unmarshal(aux, &b); err != nil {
		return nil, err
	}
	s := &controlapi.StatusResponse{}
	return s, proto.Unmarshal(b, s)
}
