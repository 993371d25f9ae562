package executor

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// ErrNoCgroups is returned for a step with resource limits on a host that lets the daemon have no control groups.
var ErrNoCgroups = errors.New("control groups are not available")

// StartError says that the command of a step could not be started: it is missing, may not be executed, or its working directory
// cannot be entered. It is the user's to mend, though the command never ran.
type StartError struct {
	Args []string
	// Code is what a shell would return: 127 for a missing command, 126 for any other reason.
	Code int
	// Reason is in the words people know from Docker: exec: "foo": executable file not found in $PATH.
	Reason string
}

func (e *StartError) Error() string { return e.Reason }

// RuntimeError says that the OCI runtime failed for a reason of its own.
type RuntimeError struct {
	Runtime string
	Reason  string
}

func (e *RuntimeError) Error() string { return e.Runtime + ": " + e.Reason }

// MissingSecretError says that no client has a secret a step must have. It is [ErrNoSecret].
type MissingSecretError struct{ ID string }

func (e *MissingSecretError) Error() string { return "secret " + e.ID + ": not found" }

// Unwrap returns [ErrNoSecret].
func (e *MissingSecretError) Unwrap() error { return ErrNoSecret }

// MissingSSHError says that no client forwards an ssh agent a step must have. It is [ErrNoSSH].
type MissingSSHError struct {
	ID  string
	Err error // what was said when asked; may be nil
}

func (e *MissingSSHError) Error() string {
	// No id is how a mount asks for the agent that users call default.
	s := fmt.Sprintf("no SSH key %q forwarded from the client", cmp.Or(e.ID, "default"))
	if e.Err != nil && !errors.Is(ErrNoSSH, e.Err) {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns [ErrNoSSH].
func (e *MissingSSHError) Unwrap() error { return ErrNoSSH }

// The reasons a runtime gives that are about the command. Both runc and crun put their own words in front.
var (
	execReason = regexp.MustCompile(`exec:? (?:"[^"]*"|/?[^:]*): .*`)
	cwdReason  = regexp.MustCompile(`chdir to cwd .*`)
)

// startFailure makes an error of what a runtime logged when it could not start a step.
func startFailure(runtimePath, logFile string, args []string, exit error) error {
	msg := lastLogged(logFile)
	if reason := cwdReason.FindString(msg); reason != "" {
		return &StartError{Args: args, Code: 126, Reason: trimReason(reason)}
	}
	if reason := execReason.FindString(msg); reason != "" {
		code := 126
		if strings.Contains(reason, "not found") || strings.Contains(reason, "no such file") {
			code = 127
		}
		return &StartError{Args: args, Code: code, Reason: trimReason(reason)}
	}
	if msg == "" {
		msg = exit.Error()
	}
	return &RuntimeError{Runtime: runtimePath, Reason: msg}
}

func trimReason(s string) string { return strings.TrimSuffix(s, ": unknown") }

// lastLogged is the last error in a runtime's JSON log.
func lastLogged(name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return "" // it logged nothing
	}
	var last string
	for line := range strings.Lines(string(b)) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal([]byte(line), &entry) == nil && (entry.Level == "error" || entry.Level == "fatal") {
			last = entry.Msg
		}
	}
	return last
}
