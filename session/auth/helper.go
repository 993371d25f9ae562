package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/docker/cli/cli/config/types"
	"github.com/docker/docker-credential-helpers/credentials"
)

// identityUser is the user name by which helpers mark a secret as an identity token.
const identityUser = "<token>"

// maxHelperOutput bounds what a helper may say, in bytes.
const maxHelperOutput = 1 << 20

// errHelperHangs says that a helper took too long.
var errHelperHangs = errors.New("no answer")

// runHelper asks the credential helper docker-credential-NAME for the account at a server. Nothing found is no error.
func runHelper(ctx context.Context, name, server string, timeout time.Duration) (types.AuthConfig, error) {
	program := "docker-credential-" + name
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("%w within %s", errHelperHangs, timeout))
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "get")
	cmd.Stdin = strings.NewReader(server)
	out, complaint := &bounded{limit: maxHelperOutput}, &bounded{limit: 4 << 10}
	cmd.Stdout, cmd.Stderr = out, complaint
	cmd.WaitDelay = time.Second // for a helper that leaves a child behind, with our pipe in its hands
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return types.AuthConfig{}, fmt.Errorf("credential helper %s: %w", program, context.Cause(ctx))
	case err != nil && credentials.IsErrCredentialsNotFoundMessage(out.String()):
		return types.AuthConfig{}, nil
	case err != nil:
		return types.AuthConfig{}, fmt.Errorf("credential helper %s: %w%s", program, err, said(out, complaint))
	}
	var c credentials.Credentials
	if err := json.Unmarshal(out.Bytes(), &c); err != nil {
		// Not the output itself: it may be a password in a wrapping that we do not know.
		return types.AuthConfig{}, fmt.Errorf("credential helper %s: its answer is not what a helper answers: %w", program, jsonError(err))
	}
	ac := types.AuthConfig{ServerAddress: server}
	if c.Username == identityUser {
		ac.IdentityToken = c.Secret
	} else {
		ac.Username, ac.Password = c.Username, c.Secret
	}
	return ac, nil
}

// said quotes a helper that failed. By the protocol the reason is on its standard output.
func said(out, complaint *bounded) string {
	for _, b := range []*bounded{out, complaint} {
		if text := strings.TrimSpace(b.String()); text != "" {
			return ": " + clip(text)
		}
	}
	return ""
}

// jsonError drops what encoding/json quotes of its input.
func jsonError(err error) error {
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
		return fmt.Errorf("no JSON at byte %d", syntax.Offset)
	}
	return errors.New("no JSON of the right shape")
}

// clip shortens foreign text for an error.
func clip(text string) string {
	const most = 300
	if len(text) > most {
		text = text[:most] + "..."
	}
	return strings.ToValidUTF8(text, "?")
}

// bounded keeps the first bytes written to it and forgets the rest.
type bounded struct {
	bytes.Buffer
	limit int
}

func (b *bounded) Write(p []byte) (int, error) {
	if room := b.limit - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
