package classic

import (
	"cmp"
	"fmt"
	"path"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/sys/signal"
)

// change applies an instruction that is about the image's config alone, and returns how histories tell of it.
func (s *stage) change(c instructions.Command) (string, error) {
	switch c := c.(type) {
	case *instructions.EnvCommand:
		return s.setEnv(c), nil
	case *instructions.LabelCommand:
		return s.setLabels(c), nil
	case *instructions.MaintainerCommand:
		s.author = c.Maintainer
		return "MAINTAINER " + c.Maintainer, nil
	case *instructions.OnbuildCommand:
		s.config.OnBuild = append(s.config.OnBuild, c.Expression)
		return "ONBUILD " + c.Expression, nil
	case *instructions.CmdCommand:
		s.config.Cmd = s.commandLine(c.ShellDependantCmdLine)
		s.cmdSet = s.cmdSet || len(c.CmdLine) > 0
		return fmt.Sprintf("CMD %q", s.config.Cmd), nil
	case *instructions.EntrypointCommand:
		s.config.Entrypoint = s.commandLine(c.ShellDependantCmdLine)
		if !s.cmdSet {
			s.config.Cmd = nil // it was the base image's, meant for another entrypoint
		}
		return fmt.Sprintf("ENTRYPOINT %q", s.config.Entrypoint), nil
	case *instructions.HealthCheckCommand:
		return s.setHealthcheck(c.Health), nil
	case *instructions.ExposeCommand:
		return s.expose(c)
	case *instructions.UserCommand:
		s.config.User = c.User
		return "USER " + c.User, nil
	case *instructions.VolumeCommand:
		return s.addVolumes(c)
	case *instructions.StopSignalCommand:
		if _, err := signal.ParseSignal(c.Signal); err != nil {
			return "", failed("Invalid signal: %s", c.Signal)
		}
		s.config.StopSignal = c.Signal
		return "STOPSIGNAL " + c.Signal, nil
	case *instructions.ArgCommand:
		return s.declareArgs(c), nil
	case *instructions.ShellCommand:
		s.config.Shell = c.Shell
		return fmt.Sprintf("SHELL %v", c.Shell), nil
	}
	return "", failed("unsupported command type: %T", c)
}

// commandLine is a command as it is run; in shell form it is given to the shell.
func (s *stage) commandLine(c instructions.ShellDependantCmdLine) []string {
	if c.PrependShell {
		return append(s.config.shell(), strings.Join(c.CmdLine, " "))
	}
	return c.CmdLine
}

func (s *stage) setEnv(c *instructions.EnvCommand) string {
	comment := "ENV"
	for _, kv := range c.Env {
		comment += " " + kv.String()
		set := false
		for i, old := range s.config.Env {
			if key, _, _ := strings.Cut(old, "="); key == kv.Key {
				s.config.Env[i], set = kv.String(), true
				break
			}
		}
		if !set {
			s.config.Env = append(s.config.Env, kv.String())
		}
	}
	return comment
}

func (s *stage) setLabels(c *instructions.LabelCommand) string {
	if s.config.Labels == nil {
		s.config.Labels = map[string]string{}
	}
	comment := "LABEL"
	for _, kv := range c.Labels {
		s.config.Labels[kv.Key] = kv.Value
		comment += " " + kv.String()
	}
	return comment
}

// setHealthcheck keeps the check; what it does not say is as it was. Histories hold what it says, as Go prints the fields that there
// were when docker began to write them.
func (s *stage) setHealthcheck(h *dockerspec.HealthcheckConfig) string {
	merged := *h
	if old := s.config.Healthcheck; old != nil {
		if len(old.Test) > 0 && old.Test[0] != "NONE" {
			s.b.Output.Text(fmt.Sprintf("Note: overriding previous HEALTHCHECK: %v\n", old.Test))
		}
		merged.Interval, merged.Timeout = cmp.Or(h.Interval, old.Interval), cmp.Or(h.Timeout, old.Timeout)
		merged.StartPeriod, merged.Retries = cmp.Or(h.StartPeriod, old.StartPeriod), cmp.Or(h.Retries, old.Retries)
	}
	s.config.Healthcheck = &merged
	return fmt.Sprintf("HEALTHCHECK &{%q %q %q %q %q}", h.Test, h.Interval, h.Timeout, h.StartPeriod, rune(h.Retries))
}

// expose is the only instruction in which one word may stand for several.
func (s *stage) expose(c *instructions.ExposeCommand) (string, error) {
	var ports []string
	for _, p := range c.Ports {
		words, err := s.b.shlex.ProcessWords(p, s.env())
		if err != nil {
			return "", &Error{err: err}
		}
		ports = append(ports, words...)
	}
	if s.config.ExposedPorts == nil {
		s.config.ExposedPorts = map[string]struct{}{}
	}
	for _, p := range ports {
		// Docker takes a published port, too, and remembers the container's.
		set, err := network.ParsePortRange(p[strings.LastIndex(p, ":")+1:])
		if err != nil {
			return "", failed("invalid containerPort: %s", p)
		}
		for one := range set.All() {
			s.config.ExposedPorts[one.String()] = struct{}{}
		}
	}
	return "EXPOSE " + strings.Join(ports, " "), nil
}

func (s *stage) addVolumes(c *instructions.VolumeCommand) (string, error) {
	if s.config.Volumes == nil {
		s.config.Volumes = map[string]struct{}{}
	}
	for _, v := range c.Volumes {
		if v == "" {
			return "", failed("VOLUME specified can not be an empty string")
		}
		s.config.Volumes[v] = struct{}{}
	}
	return fmt.Sprintf("VOLUME %v", c.Volumes), nil
}

func (s *stage) declareArgs(c *instructions.ArgCommand) string {
	var list []string
	for _, arg := range c.Args {
		text := arg.Key
		if arg.Value != nil {
			text += "=" + *arg.Value
		}
		list = append(list, text)
		s.args.declare(arg.Key, arg.Value)
	}
	return "ARG " + strings.Join(list, " ")
}

// joinWorkdir is the directory that a WORKDIR names from another.
func joinWorkdir(current, requested string) (string, error) {
	if requested == "" {
		return "", failed("cannot normalize nothing")
	}
	if path.IsAbs(requested) {
		return path.Clean(requested), nil
	}
	return path.Join("/", current, requested), nil
}
