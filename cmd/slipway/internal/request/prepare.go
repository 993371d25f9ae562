package request

import (
	"context"
	"io"
	"maps"
	"net"

	controlapi "github.com/moby/buildkit/api/services/control"
	sessioncontent "github.com/moby/buildkit/session/content"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/auth"
	"github.com/slipwaybuild/slipway/session/filesync"
	"github.com/slipwaybuild/slipway/session/samehost"
	"github.com/slipwaybuild/slipway/session/secrets"
	"github.com/slipwaybuild/slipway/session/ssh"
	"github.com/slipwaybuild/slipway/session/upload"
)

// Frontend is the frontend that reads Dockerfiles.
const Frontend = "dockerfile.v0"

// Prepared is a build that is ready to be sent.
type Prepared struct {
	// Solve lacks the session's id only when it was made; see [Prepare].
	Solve *controlapi.SolveRequest
	// Session offers what the build may ask of the client. The caller runs and closes it.
	Session *session.Session
	// Outputs are in the order of their exporter ids.
	Outputs []Output
	// Warnings are what the user should know before the build begins.
	Warnings []string

	cacheDirs []cacheDir
	dirs      map[string]filesync.Dir
}

// SameHost lets a daemon on this host read the build's directories, and write its outputs, itself. dial connects to the daemon. It is
// called before the session runs, or not at all.
func (p *Prepared) SameHost(dial func(context.Context) (net.Conn, error)) {
	o := samehost.Offer{Sources: map[string]samehost.Source{}, Targets: map[int]samehost.Target{}, Dial: dial}
	for name, dir := range p.dirs {
		if dir.Path != "" {
			o.Sources[name] = samehost.Source{Path: dir.Path, ResetOwner: true} // as all directories of a build are
		}
	}
	for i, out := range p.Outputs {
		if out.Target == nil {
			continue
		}
		if to := *out.Target; to.Dir != "" {
			o.Targets[i] = samehost.Target{Dir: to.Dir, KeepOwner: to.KeepOwner, Delete: to.Delete}
		} else if out.file {
			o.Targets[i] = samehost.Target{Open: lend(to)}
		}
	}
	p.Session.Allow(samehost.New(o))
}

// Prepare checks the flags and gathers what the build needs of this host. Nothing has been sent when it returns; reading a
// context from stdin goes on while the build runs.
func Prepare(ctx context.Context, o Options, stdin io.Reader, stdout io.Writer) (*Prepared, error) {
	outputs, err := parseOutputs(o, stdout)
	if err != nil {
		return nil, err
	}
	attrs, err := frontendAttrs(ctx, o)
	if err != nil {
		return nil, err
	}
	rewriteTimes(outputs, attrs)
	src, err := findContext(o, stdin)
	if err != nil {
		return nil, err
	}
	for _, arg := range o.BuildContexts {
		if err := src.addNamed(arg); err != nil {
			return nil, err
		}
	}
	maps.Copy(attrs, src.attrs)
	c, err := src.parseCaches(o.CacheFrom, o.CacheTo)
	if err != nil {
		return nil, err
	}
	s := session.New(session.Options{SharedKey: src.key})
	if err := offer(ctx, s, o, src, outputs, attrs); err != nil {
		return nil, err
	}
	solve := &controlapi.SolveRequest{
		Ref:           session.NewID(),
		Session:       s.ID(),
		Frontend:      Frontend,
		FrontendAttrs: attrs,
		Entitlements:  entitlements(o),
		Cache:         &controlapi.CacheOptions{Imports: c.from, Exports: c.to},
	}
	for _, out := range outputs {
		solve.Exporters = append(solve.Exporters, &controlapi.Exporter{Type: out.Type, Attrs: out.Attrs})
	}
	return &Prepared{Solve: solve, Session: s, Outputs: outputs, Warnings: c.warnings, cacheDirs: c.dirs, dirs: src.dirs}, nil
}

// offer puts the attachables on the session.
func offer(ctx context.Context, s *session.Session, o Options, src *sources, outputs []Output, attrs map[string]string) error {
	s.Allow(auth.New(auth.Options{}))
	s.Allow(filesync.NewProvider(src.dirs, filesync.ProviderOptions{}))
	targets := map[int]filesync.Target{}
	for i, out := range outputs {
		if out.Target != nil {
			targets[i] = *out.Target
		}
	}
	if len(targets) > 0 {
		s.Allow(filesync.NewTarget(targets))
	}
	if len(o.Secrets) > 0 {
		sources, err := secrets.ParseAll(o.Secrets)
		if err != nil {
			return err
		}
		a, err := secrets.New(sources)
		if err != nil {
			return err
		}
		s.Allow(a)
	}
	if len(o.SSH) > 0 {
		configs, err := ssh.ParseAll(o.SSH)
		if err != nil {
			return err
		}
		a, err := ssh.New(ctx, configs)
		if err != nil {
			return err
		}
		s.Allow(a)
	}
	if len(src.stores) > 0 {
		s.Allow(sessioncontent.NewAttachable(src.stores))
	}
	if src.upload != nil {
		up := upload.New()
		attrs["context"] = up.Add(io.NopCloser(src.upload))
		s.Allow(up)
	}
	return nil
}
