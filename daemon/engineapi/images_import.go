package engineapi

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/daemon/imageservice"
)

// importImage makes an image of a root file system in the body.
func (a *api) importImage(w http.ResponseWriter, r *http.Request, platform *ocispecs.Platform) error {
	q := r.URL.Query()
	switch src := q.Get("fromSrc"); src {
	case "-":
	case "":
		return invalid("name the image to pull as fromImage, or send a file system with fromSrc=-")
	default:
		return unserved("file systems are not imported from URLs: fetch it, and send it on standard input")
	}
	o := imageservice.ImportOptions{Message: q.Get("message"), Platform: platform}
	if repo := q.Get("repo"); repo != "" {
		named, err := pulledName(repo, q.Get("tag"))
		if err != nil {
			return err
		}
		if _, ok := named.(reference.Digested); ok {
			return invalid("cannot import digest reference")
		}
		o.Name = reference.TagNameOnly(named)
	}
	for _, text := range q["changes"] {
		if err := applyChange(&o.Config, text); err != nil {
			return invalid("change %q: %w", text, err)
		}
	}
	out := newStream(w, r)
	id, err := a.Images.Import(r.Context(), r.Body, o)
	if err == nil {
		_ = out.Send(message{Status: id.String()}) // a client that left has its image all the same
	}
	return out.End(err)
}

// applyChange applies instructions of a Dockerfile that change nothing but the config.
func applyChange(c *ocispecs.ImageConfig, text string) error {
	ast, err := parser.Parse(strings.NewReader(text))
	if err != nil {
		return err
	}
	for _, node := range ast.AST.Children {
		cmd, err := instructions.ParseCommand(node)
		if err != nil {
			return err
		}
		if err := applyInstruction(c, cmd); err != nil {
			return err
		}
	}
	return nil
}

func applyInstruction(c *ocispecs.ImageConfig, cmd instructions.Command) error {
	switch i := cmd.(type) {
	case *instructions.CmdCommand:
		c.Cmd = arguments(i.ShellDependantCmdLine)
	case *instructions.EntrypointCommand:
		c.Entrypoint = arguments(i.ShellDependantCmdLine)
	case *instructions.EnvCommand:
		for _, e := range i.Env {
			c.Env = append(c.Env, e.Key+"="+e.Value)
		}
	case *instructions.LabelCommand:
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		for _, l := range i.Labels {
			c.Labels[l.Key] = l.Value
		}
	case *instructions.ExposeCommand:
		return exposePorts(c, i.Ports)
	case *instructions.VolumeCommand:
		if c.Volumes == nil {
			c.Volumes = map[string]struct{}{}
		}
		for _, v := range i.Volumes {
			c.Volumes[v] = struct{}{}
		}
	case *instructions.UserCommand:
		c.User = i.User
	case *instructions.WorkdirCommand:
		c.WorkingDir = i.Path
	case *instructions.StopSignalCommand:
		c.StopSignal = i.Signal
	default:
		return fmt.Errorf("%s is not one of CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR", strings.ToUpper(cmd.Name()))
	}
	return nil
}

func exposePorts(c *ocispecs.ImageConfig, ports []string) error {
	if c.ExposedPorts == nil {
		c.ExposedPorts = map[string]struct{}{}
	}
	for _, p := range ports {
		if strings.ContainsAny(p, ":-") {
			return errors.New("name ports one by one, as 80 or 80/tcp")
		}
		if !strings.Contains(p, "/") {
			p += "/tcp"
		}
		c.ExposedPorts[p] = struct{}{}
	}
	return nil
}

// arguments is a command line as it is run.
func arguments(l instructions.ShellDependantCmdLine) []string {
	if l.PrependShell {
		return append([]string{"/bin/sh", "-c"}, strings.Join(l.CmdLine, " "))
	}
	return l.CmdLine
}
