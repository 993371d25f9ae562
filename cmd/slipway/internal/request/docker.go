package request

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/slipwaybuild/slipway/session"
)

// Contexts of Docker's API that are no URL.
const (
	remoteSession = "client-session"
	remoteUpload  = "upload-request"
)

// DockerBuild is a build that is ready to be sent by Docker's Engine API.
type DockerBuild struct {
	// ID is the client's name for the build.
	ID string
	// Session offers what the build may ask of the client. The caller runs and closes it.
	Session *session.Session
	// Query are the parameters of POST /build that say what is built.
	Query url.Values
	// Upload is a tarball that is the context, nil if it comes otherwise.
	Upload io.Reader
	// Outputs are in the order of their exporter ids.
	Outputs []Output

	given map[string]bool // attributes of the frontend that were asked for
}

// PrepareDocker is [Prepare] for Docker's Engine API. What it has no words for is refused, by the name of the flag that asks for it.
// What depends on who answers is for [DockerBuild.Suit].
func PrepareDocker(ctx context.Context, o Options, stdin io.Reader, stdout io.Writer) (*DockerBuild, error) {
	if err := refuseFlags(o); err != nil {
		return nil, err
	}
	outputs, err := parseOutputs(o, stdout)
	if err != nil {
		return nil, err
	}
	attrs, err := frontendAttrs(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := setInlineCache(attrs, o); err != nil {
		return nil, err
	}
	q, err := dockerQuery(attrs)
	if err != nil {
		return nil, err
	}
	if err := setCacheImages(q, o); err != nil {
		return nil, err
	}
	setDockerTags(q, o, outputs)
	src, err := findContext(o, stdin)
	if err != nil {
		return nil, err
	}
	b := &DockerBuild{ID: session.NewID(), Query: q, Outputs: outputs, given: map[string]bool{}}
	for key := range attrs {
		b.given[key] = true
	}
	if err := b.setContext(src); err != nil {
		return nil, err
	}
	b.Session = session.New(session.Options{SharedKey: src.key})
	if err := offer(ctx, b.Session, o, src, outputs, attrs); err != nil {
		return nil, err
	}
	q.Set("session", b.Session.ID())
	return b, nil
}

// setContext says where the context and the Dockerfile are. An archive becomes the upload, since these daemons ask for none by session.
func (b *DockerBuild) setContext(src *sources) error {
	b.Upload, src.upload = src.upload, nil
	remote := src.attrs["context"]
	switch {
	case b.Upload != nil:
		remote = remoteUpload
	case remote == "":
		remote = remoteSession
	case src.attrs["dockerfilekey"] != "":
		return errors.New("Docker's API takes no Dockerfile from standard input for a context at a URL")
	}
	b.Query.Set("remote", remote)
	b.Query.Set("dockerfile", src.attrs["filename"])
	return nil
}

// setDockerTags names the image. An output's own names count as those of -t do.
func setDockerTags(q url.Values, o Options, outputs []Output) {
	q["t"] = o.Tags
	if len(outputs) == 1 && isImage(outputs[0]) {
		q.Del("t")
		if name := outputs[0].Attrs["name"]; name != "" {
			q["t"] = strings.Split(name, ",")
		}
	}
}

// isImage tells whether an output is the daemon's own store.
func isImage(out Output) bool { return out.Type == "image" || out.Type == "moby" }

// plainImage tells whether an output is what the daemon makes when no output is named.
func plainImage(out Output) bool {
	for k, v := range out.Attrs {
		if k != "name" && (k != "push" || v != "false") {
			return false
		}
	}
	return isImage(out)
}

// setOutputs names the outputs, unless there is only the usual one.
func (b *DockerBuild) setOutputs() error {
	if len(b.Outputs) == 1 && plainImage(b.Outputs[0]) {
		return nil
	}
	type output struct {
		Type  string
		Attrs map[string]string
	}
	var list []output
	for _, out := range b.Outputs {
		list = append(list, output{out.Type, out.Attrs})
	}
	text, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("name the outputs: %w", err)
	}
	b.Query.Set("outputs", string(text))
	return nil
}
