package ssh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Messages of the agent protocol that a forwarded agent answers, and the answer to all others.
const (
	agentFailure           = 5
	agentRequestIdentities = 11
	agentIdentitiesAnswer  = 12
	agentSignRequest       = 13
)

// maxAgentMessage bounds one message, in bytes; it is OpenSSH's own limit.
const maxAgentMessage = 256 << 10

// readOnly passes requests to the agent and its answers back, one after another, until requests end. A request that is not for the list of keys
// or a signature does not reach the agent: it is answered with failure, which is what an agent says to what it does not know.
func readOnly(client, agent io.ReadWriter) error {
	buf := make([]byte, 4+maxAgentMessage)
	for {
		req, err := readMessage(client, buf)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a request to the agent: %w", err)
		}
		answer := []byte{0, 0, 0, 1, agentFailure}
		if kind := req[4]; kind == agentRequestIdentities || kind == agentSignRequest {
			if _, err := agent.Write(req); err != nil {
				return fmt.Errorf("ask the agent: %w", err)
			}
			if answer, err = readMessage(agent, buf); err != nil {
				return fmt.Errorf("read the agent's answer: %w", err)
			}
		}
		if _, err := client.Write(answer); err != nil {
			return fmt.Errorf("answer for the agent: %w", err)
		}
	}
}

// readMessage reads one message with its length into buf. io.EOF means that there is none.
func readMessage(r io.Reader, buf []byte) ([]byte, error) {
	if _, err := io.ReadFull(r, buf[:4]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(buf)
	if n == 0 || n > maxAgentMessage {
		return nil, fmt.Errorf("message of %d bytes, not 1 to %d", n, maxAgentMessage)
	}
	if _, err := io.ReadFull(r, buf[4:4+n]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return buf[:4+n], nil
}
