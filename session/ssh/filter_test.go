package ssh

import (
	"bytes"
	"io"
	"testing"
)

// talk is one direction to read and one to write.
type talk struct {
	io.Reader
	io.Writer
}

// FuzzReadOnly: whatever a step sends, only complete requests to list and to sign reach the agent.
func FuzzReadOnly(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, agentRequestIdentities})
	f.Add([]byte{0, 0, 0, 1, agentRequestIdentities, 0, 0, 0, 2, agentSignRequest, 9})
	f.Add([]byte{0, 0, 0, 1, 19})                     // remove all
	f.Add([]byte{0, 0, 0, 2, 27, 1, 0, 0, 0, 1, 11})  // extension, then list
	f.Add([]byte{255, 255, 255, 255, 11})             // a length beyond all bounds
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 1, 11})         // empty
	f.Add([]byte{0, 0, 0, 5, agentSignRequest, 1, 2}) // cut off
	f.Add([]byte{0, 4, 0, 1, agentRequestIdentities}) // one byte too long
	f.Fuzz(func(t *testing.T, in []byte) {
		var toAgent, toClient bytes.Buffer
		answers := bytes.NewReader(bytes.Repeat([]byte{0, 0, 0, 1, agentIdentitiesAnswer}, len(in)))
		err := readOnly(talk{bytes.NewReader(in), &toClient}, talk{answers, &toAgent})
		buf := make([]byte, 4+maxAgentMessage)
		asked := 0
		for toAgent.Len() > 0 {
			m, err := readMessage(&toAgent, buf)
			if err != nil {
				t.Fatalf("the agent got a broken message: %v", err)
			}
			if m[4] != agentRequestIdentities && m[4] != agentSignRequest {
				t.Fatalf("request %d reached the agent", m[4])
			}
			asked++
		}
		answered := 0
		for toClient.Len() > 0 {
			if _, err := readMessage(&toClient, buf); err != nil {
				t.Fatalf("the client got a broken answer: %v", err)
			}
			answered++
		}
		if answered < asked || err == nil && len(in) > 0 && answered == 0 {
			t.Errorf("%d answers to %d requests that reached the agent: %v", answered, asked, err)
		}
	})
}
