package engineapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"time"

	"github.com/containerd/errdefs"
)

// imageDetails is all about an image, in the words of API 1.41.
type imageDetails struct {
	ID              string `json:"Id"`
	RepoTags        []string
	RepoDigests     []string
	Parent          string
	Comment         string
	Created         string
	Container       string
	ContainerConfig map[string]json.RawMessage
	DockerVersion   string
	Author          string
	Config          map[string]json.RawMessage
	Architecture    string
	Variant         string `json:",omitempty"`
	Os              string
	OsVersion       string `json:",omitempty"`
	Size            int64
	VirtualSize     int64
	GraphDriver     graphDriver
	RootFS          rootFS
	Metadata        imageMetadata
}

type graphDriver struct {
	Data map[string]string
	Name string
}

type rootFS struct {
	Type   string
	Layers []string `json:",omitempty"`
}

type imageMetadata struct{ LastTagTime time.Time }

// emptyConfig is a config of docker's in which nothing is set. Clients find all of its fields in every config.
func emptyConfig() map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	for _, text := range []string{"Hostname", "Domainname", "User", "Image", "WorkingDir"} {
		out[text] = json.RawMessage(`""`)
	}
	for _, flag := range []string{"AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce"} {
		out[flag] = json.RawMessage(`false`)
	}
	for _, list := range []string{"Env", "Cmd", "Volumes", "Entrypoint", "OnBuild", "Labels"} {
		out[list] = json.RawMessage(`null`)
	}
	return out
}

func (a *api) inspectImage(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	d, err := a.Images.Inspect(r.Context(), name)
	if errors.Is(err, errdefs.ErrNotFound) {
		return notFound("no such image: %s: %w", name, err)
	}
	if err != nil {
		return err
	}
	out := imageDetails{
		ID: d.ID.String(), RepoTags: orEmpty(d.Tags), RepoDigests: orEmpty(d.Digests), ContainerConfig: emptyConfig(), Config: emptyConfig(),
		Author: d.Config.Author, Architecture: d.Config.Architecture, Variant: d.Config.Variant, Os: d.Config.OS, OsVersion: d.Config.OSVersion,
		Size: d.Size, VirtualSize: d.Size, GraphDriver: graphDriver{Name: "slipway"}, RootFS: rootFS{Type: d.Config.RootFS.Type},
		Metadata: imageMetadata{LastTagTime: d.Named},
	}
	if d.Config.Created != nil {
		out.Created = d.Config.Created.Format(time.RFC3339Nano)
	}
	for _, id := range d.Config.RootFS.DiffIDs {
		out.RootFS.Layers = append(out.RootFS.Layers, id.String())
	}
	if n := len(d.Config.History); n > 0 {
		out.Comment = d.Config.History[n-1].Comment
	}
	if len(d.ConfigJSON) > 0 {
		if err := out.addConfig(d.ConfigJSON); err != nil {
			return fmt.Errorf("config of image %s: %w", name, err)
		}
	}
	return answer(w, out)
}

// addConfig takes over what an image's config says, fields that nobody here knows included.
func (d *imageDetails) addConfig(b []byte) error {
	var c struct {
		Config        map[string]json.RawMessage `json:"config"`
		Comment       string                     `json:"comment"`
		DockerVersion string                     `json:"docker_version"`
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return err
	}
	maps.Copy(d.Config, c.Config)
	d.DockerVersion = c.DockerVersion
	if c.Comment != "" {
		d.Comment = c.Comment
	}
	return nil
}

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// imageStep is one line of an image's history.
type imageStep struct {
	Comment   string
	Created   int64
	CreatedBy string
	ID        string `json:"Id"`
	Size      int64
	Tags      []string
}

func (a *api) imageHistory(w http.ResponseWriter, r *http.Request) error {
	steps, err := a.Images.History(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	out := []imageStep{}
	for _, s := range steps {
		one := imageStep{Comment: s.Comment, Created: unixOr0(s.Created), CreatedBy: s.CreatedBy, ID: "<missing>", Size: s.Size, Tags: s.Tags}
		if s.ID != "" {
			one.ID = s.ID.String()
		}
		out = append(out, one)
	}
	return answer(w, out)
}
