package dockerengine

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// maxList bounds what is read of an answer about images, in bytes.
const maxList = 64 << 20

// Image is one line of a list of images.
type Image struct {
	ID       string `json:"Id"`
	RepoTags []string
	// Created is in seconds since 1970, Size in bytes.
	Created, Size int64
}

// Removed is one thing that the removal of an image did: exactly one of the two is set.
type Removed struct{ Untagged, Deleted string }

// Images lists what is in the image store; with all, also what has no name and what other images were made of.
func (c *Client) Images(ctx context.Context, all bool) ([]Image, error) {
	q := url.Values{}
	if all {
		q.Set("all", "1")
	}
	var list []Image
	err := c.ask(ctx, http.MethodGet, "/images/json", q, &list)
	return list, err
}

// InspectImage returns what the daemon says of an image, as JSON.
func (c *Client) InspectImage(ctx context.Context, name string) (json.RawMessage, error) {
	var raw json.RawMessage
	err := c.ask(ctx, http.MethodGet, "/images/"+name+"/json", nil, &raw)
	return raw, err
}

// TagImage gives an image a further name.
func (c *Client) TagImage(ctx context.Context, name, repo, tag string) error {
	return c.ask(ctx, http.MethodPost, "/images/"+name+"/tag", url.Values{"repo": {repo}, "tag": {tag}}, nil)
}

// RemoveImage removes a name, or an image by its id; with force, an image with several names.
func (c *Client) RemoveImage(ctx context.Context, name string, force bool) ([]Removed, error) {
	q := url.Values{}
	if force {
		q.Set("force", "1")
	}
	var list []Removed
	err := c.ask(ctx, http.MethodDelete, "/images/"+name, q, &list)
	return list, err
}

// ask makes a request and reads the answer into v, unless it is nil.
func (c *Client) ask(ctx context.Context, method, path string, q url.Values, v any) error {
	res, err := c.send(ctx, method, path, q, nil)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if v == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxList)).Decode(v); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil
}
