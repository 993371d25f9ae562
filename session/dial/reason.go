package dial

import (
	"encoding/json"
	"strings"
)

// reason finds the daemon's message in the body of an error: {"message": "..."}, or plain text.
func reason(body []byte) string {
	var m struct {
		Message string `json:"message"`
	}
	if err := json.Unmarshal(body, &m); err == nil && m.Message != "" {
		return m.Message
	}
	return strings.TrimSpace(string(body))
}
