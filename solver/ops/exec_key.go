package ops

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// Key names everything that can change what the command does. Of devices it names those that the host has of what was asked for. Not
// in it are proxies, addresses of extra hosts, limits on resources, the cgroup, the ids of caches, and values of secrets: people
// change these without wanting the step to run again. That a step may let a secret out is in it: what came of that is for builds that
// allow it, too.
func (e *execOp) Key(context.Context, solver.Call) (solver.Parts, error) {
	meta := e.op.Meta
	parts := solver.Parts{{Name: "op", Value: "exec"}}
	add := func(name, value string) { parts = append(parts, solver.Part{Name: name, Value: value}) }
	for i, a := range meta.Args {
		add("arg."+strconv.Itoa(i), a)
	}
	for _, kv := range meta.Env {
		k, v, _ := strings.Cut(kv, "=")
		add("env."+k, v)
	}
	add("cwd", meta.Cwd)
	add("user", meta.User)
	add("hostname", meta.Hostname)
	add("network", e.op.Network.String())
	add("security", e.op.Security.String())
	parts = append(parts, platformParts(e.platform)...)
	for _, h := range meta.ExtraHosts {
		add("host."+h.GetHost(), "")
	}
	for _, u := range meta.Ulimit {
		add("ulimit."+u.GetName(), fmt.Sprintf("%d:%d", u.GetSoft(), u.GetHard()))
	}
	if meta.RemoveMountStubsRecursive {
		add("removeMountStubs", "recursive")
	}
	if e.keepMountPoints {
		add("mountPoints", "kept")
	}
	for _, c := range meta.ValidExitCodes {
		add("exitCode", strconv.Itoa(int(c)))
	}
	for _, s := range e.op.Secretenv {
		add("secretEnv."+s.Name, fmt.Sprintf("%s optional=%t", s.ID, s.Optional))
	}
	for _, id := range e.allowed {
		add("allowSecretLeak", id)
	}
	for _, name := range e.devices.names {
		add("device."+name, "")
	}
	for _, m := range e.op.Mounts {
		parts = append(parts, e.mountParts(m)...)
	}
	return parts, nil
}

// mountParts says what one mount shows to the command and where.
func (e *execOp) mountParts(m *pb.Mount) solver.Parts {
	prefix := "mount." + mountDest(m.Dest, e.op.Meta.Cwd)
	what := []string{strings.ToLower(m.MountType.String())}
	if m.Readonly {
		what = append(what, "ro")
	}
	if m.Input != noIndex {
		what = append(what, fmt.Sprintf("input=%d", m.Input))
	}
	if o := outputOf(m); o != noIndex {
		what = append(what, fmt.Sprintf("output=%d", o))
	}
	parts := solver.Parts{{Name: prefix, Value: strings.Join(what, " ")}}
	switch {
	case m.MountType == pb.MountType_SECRET:
		o := m.SecretOpt
		parts = append(parts, solver.Part{Name: prefix + ".secret", Value: fmt.Sprintf("%s mode=%o uid=%d gid=%d optional=%t",
			o.GetID(), o.GetMode(), o.GetUid(), o.GetGid(), o.GetOptional())})
	case m.MountType == pb.MountType_SSH:
		o := m.SSHOpt
		parts = append(parts, solver.Part{Name: prefix + ".ssh", Value: fmt.Sprintf("%s mode=%o uid=%d gid=%d optional=%t",
			o.GetID(), o.GetMode(), o.GetUid(), o.GetGid(), o.GetOptional())})
	case m.MountType == pb.MountType_TMPFS:
		parts = append(parts, solver.Part{Name: prefix + ".size", Value: strconv.FormatInt(m.TmpfsOpt.GetSize(), 10)})
	case m.Selector != "" && e.Selector(int(m.Input)) == nil:
		// Where the content of what is mounted is digested, where it lay does not matter.
		parts = append(parts, solver.Part{Name: prefix + ".selector", Value: cleanRel(m.Selector)})
	}
	return parts
}

// mountDest is where a mount appears: relative destinations count from the working directory.
func mountDest(dest, cwd string) string {
	if path.IsAbs(dest) {
		return path.Clean(dest)
	}
	return path.Join("/", cwd, dest)
}

// execSelectors finds the inputs that enter the identity by the content of what is mounted: those of which every mount allows
// it.
func execSelectors(f *Factory, mounts []*pb.Mount, inputs int) ([]solver.Selector, error) {
	paths := make([][]string, inputs)
	whole := make([]bool, inputs)
	for _, m := range mounts {
		if m.Input == noIndex {
			continue
		}
		switch m.MountType {
		case pb.MountType_BIND, pb.MountType_CACHE:
		default:
			continue
		}
		if !byContent(m) {
			whole[m.Input] = true
			continue
		}
		paths[m.Input] = append(paths[m.Input], cleanRel(m.Selector))
	}
	out := make([]solver.Selector, inputs)
	for i, ps := range paths {
		if whole[i] || len(ps) == 0 {
			continue
		}
		slices.Sort(ps)
		var sel []fstree.Selector
		for _, p := range slices.Compact(ps) {
			sel = append(sel, fstree.Selector{Path: p, DigestOptions: fstree.DigestOptions{Follow: true}})
		}
		out[i] = newSelector(f, i, sel, nil)
	}
	return out, nil
}

// cleanRel is a path from the root without leading slash or "..", "" for the root itself.
func cleanRel(p string) string {
	return path.Join("/", p)[1:]
}
