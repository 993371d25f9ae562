package dockerengine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/slipwaybuild/slipway/cmd/internal/version"
)

// maxRefusal bounds what is read of an answer that refuses, in bytes.
const maxRefusal = 64 << 10

// Client talks to one daemon. It may be used concurrently.
type Client struct {
	// Engine is the daemon, as it presented itself.
	Engine Engine

	http *http.Client
}

// Connect asks the daemon who it is. open opens its connections; the client closes them.
func Connect(ctx context.Context, open func(context.Context) (net.Conn, error)) (*Client, error) {
	c := &Client{http: &http.Client{
		Transport: &http.Transport{
			// Bytes are as the user gave them; a proxy of the environment is not for the way to the daemon.
			DisableCompression: true,
			DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return open(ctx) },
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if err := c.ping(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close closes the connections that no request uses.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) ping(ctx context.Context) error {
	res, err := c.send(ctx, http.MethodGet, "/_ping", nil, nil)
	if err != nil {
		return fmt.Errorf("ask who answers: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	// The body is two letters; reading it leaves the connection to the build.
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxRefusal))
	api, err := ParseVersion(res.Header.Get("Api-Version"))
	if err != nil {
		return fmt.Errorf("ask who answers: %w", err)
	}
	if newest.Before(api) {
		api = newest
	}
	c.Engine = Engine{API: api, Server: res.Header.Get("Server")}
	return nil
}

// send makes a request and returns the answer if it is a good one. The caller closes its body.
func (c *Client) send(ctx context.Context, method, path string, q url.Values, body io.Reader) (*http.Response, error) {
	if c.Engine.API != (Version{}) {
		path = "/v" + c.Engine.API.String() + path
	}
	// The host is nobody's: connections are opened without a look at it.
	u := url.URL{Scheme: "http", Host: "docker", Path: path, RawQuery: q.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "slipway/"+version.String())
	if path != "/_ping" {
		req.Header.Set("Content-Type", "application/x-tar")
	}
	res, err := c.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // what it says besides is a host that does not exist
		}
		return nil, err
	}
	if res.StatusCode >= 200 && res.StatusCode < 300 {
		return res, nil
	}
	defer func() { _ = res.Body.Close() }()
	b, _ := io.ReadAll(io.LimitReader(res.Body, maxRefusal)) // as much of the reason as there is
	return nil, refusal(res.Status, b)
}

// refusal is the daemon's reason, in its JSON or plainly.
func refusal(status string, body []byte) error {
	var m struct{ Message string }
	text := strings.TrimSpace(string(body))
	if json.Unmarshal(body, &m) == nil && m.Message != "" {
		text = m.Message
	}
	if text == "" {
		return fmt.Errorf("the daemon answered %s", status)
	}
	return fmt.Errorf("the daemon answered %s: %s", status, text)
}
