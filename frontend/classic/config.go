package classic

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// containerConfig is what docker says of a container, and of an image's containers to be. Names and order of its JSON are docker's.
type containerConfig struct {
	Hostname     string
	Domainname   string
	User         string
	AttachStdin  bool
	AttachStdout bool
	AttachStderr bool
	ExposedPorts map[string]struct{} `json:",omitempty"`
	Tty          bool
	OpenStdin    bool
	StdinOnce    bool
	Env          []string
	Cmd          []string
	Healthcheck  *dockerspec.HealthcheckConfig `json:",omitempty"`
	ArgsEscaped  bool                          `json:",omitempty"`
	Image        string
	Volumes      map[string]struct{}
	WorkingDir   string
	Entrypoint   []string
	OnBuild      []string
	Labels       map[string]string
	StopSignal   string   `json:",omitempty"`
	StopTimeout  *int     `json:",omitempty"`
	Shell        []string `json:",omitempty"`
}

// imageConfig is an image's config as docker writes it.
type imageConfig struct {
	Architecture    string             `json:"architecture"`
	Variant         string             `json:"variant,omitempty"`
	OS              string             `json:"os"`
	OSVersion       string             `json:"os.version,omitempty"`
	OSFeatures      []string           `json:"os.features,omitempty"`
	Author          string             `json:"author,omitempty"`
	Config          *containerConfig   `json:"config,omitempty"`
	Container       string             `json:"container,omitempty"`
	ContainerConfig *containerConfig   `json:"container_config,omitempty"`
	Created         *time.Time         `json:"created,omitempty"`
	History         []ocispecs.History `json:"history,omitempty"`
	RootFS          ocispecs.RootFS    `json:"rootfs"`
}

func parseImage(raw []byte) (c imageConfig, err error) {
	if err := json.Unmarshal(raw, &c); err != nil {
		return c, fmt.Errorf("parse image config: %w", err)
	}
	return c, nil
}

// clone returns a copy that shares nothing which instructions change.
func (c *containerConfig) clone() *containerConfig {
	n := *c
	n.ExposedPorts, n.Volumes, n.Labels = maps.Clone(c.ExposedPorts), maps.Clone(c.Volumes), maps.Clone(c.Labels)
	n.Env, n.Cmd, n.Entrypoint = slices.Clone(c.Env), slices.Clone(c.Cmd), slices.Clone(c.Entrypoint)
	n.OnBuild, n.Shell = slices.Clone(c.OnBuild), slices.Clone(c.Shell)
	return &n
}

// shell is what commands in shell form are given to.
func (c *containerConfig) shell() []string {
	if len(c.Shell) > 0 {
		return slices.Clone(c.Shell)
	}
	return []string{"/bin/sh", "-c"}
}

// noted is the config of a container that ran nothing but a comment. Most instructions keep the comment apart from the marker, and
// then there are two spaces between them in histories; those that change files do not.
func (c *containerConfig) noted(comment string, apart bool) *containerConfig {
	n := c.clone()
	if apart {
		n.Cmd = append(c.shell(), "#(nop) ", comment)
	} else {
		n.Cmd = append(c.shell(), "#(nop) "+comment)
	}
	return n
}

// sameStep tells whether two containers did the same as far as docker's cache is concerned.
func sameStep(a, b *containerConfig) bool {
	return a.User == b.User && a.OpenStdin == b.OpenStdin && a.Tty == b.Tty &&
		slices.Equal(a.Cmd, b.Cmd) && slices.Equal(a.Env, b.Env) && slices.Equal(a.Entrypoint, b.Entrypoint) &&
		maps.Equal(a.Labels, b.Labels) && maps.Equal(a.ExposedPorts, b.ExposedPorts) && maps.Equal(a.Volumes, b.Volumes)
}
