package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 64 << 10

// CancelBuild has the daemon end a build; it may go on for a moment. A build that does not run, or is somebody else's, is an error.
func (d *Daemon) CancelBuild(ctx context.Context, ref string) error {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.Dial(ctx) }}
	defer transport.CloseIdleConnections()
	u := url.URL{Scheme: "http", Host: "slipwayd", Path: "/build/cancel", RawQuery: url.Values{"ref": {ref}}.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), nil)
	if err != nil {
		return fmt.Errorf("cancel build %s: %w", ref, err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("cancel build %s: %w", ref, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("cancel build %s: %w", ref, err)
	}
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	var said struct{ Message string }
	if json.Unmarshal(b, &said) == nil && said.Message != "" {
		return errors.New(said.Message)
	}
	return fmt.Errorf("cancel build %s: the daemon answers %s", ref, resp.Status)
}
