package daemon

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"path/filepath"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/daemon/config"
	"github.com/slipwaybuild/slipway/daemon/contents"
	"github.com/slipwaybuild/slipway/daemon/history"
	"github.com/slipwaybuild/slipway/session/tracing/otelbridge"
	"github.com/slipwaybuild/slipway/solver/guard"
)

// errUnfinished is told of a build that ended without an outcome: something panicked.
var errUnfinished = errors.New("the build ended without an outcome, which is a fault of the daemon")

// openHistory opens what is remembered of builds.
func (e *Engine) openHistory(ctx context.Context, o Options, root string) (err error) {
	c := historyOptions(o.Config.History)
	c.Root, c.Logger = filepath.Join(root, "history"), e.log
	if e.history, err = history.Open(ctx, c); err != nil {
		return err
	}
	e.opened("build history", e.history.Close)
	return nil
}

func historyOptions(c config.History) history.Options {
	o := history.Options{MaxEntries: history.UsualEntries, MaxAge: history.UsualAge}
	if c.MaxEntries != nil {
		o.MaxEntries = int(max(*c.MaxEntries, 0))
	}
	if c.MaxAge != nil {
		o.MaxAge = max(c.MaxAge.Duration, 0)
	}
	if c.MaxEntries != nil && *c.MaxEntries == 0 {
		o.MaxAge = 0 // as in BuildKit, this switches the history off
	}
	return o
}

// History remembers builds.
func (e *Engine) History() *history.Store { return e.history }

// Contents reads, by digest, what belongs to build records and what the image store holds.
func (e *Engine) Contents() *contents.Union {
	return contents.New(e.history.Content(), contents.WithLayers(e.images.Content(), e.images.Provider()))
}

// remember begins the record of a build, and its journal. The values are those the build may use, none so far.
func (e *Engine) remember(ctx context.Context, r Request, values *guard.Values) (*history.Build, error) {
	start := history.Start{Ref: r.Ref, Frontend: r.Frontend, FrontendAttrs: withoutAccess(r.FrontendAttrs), Unrecorded: r.Internal}
	start.Mask = func(s string) string { return values.Matcher().MaskString(s) }
	for _, out := range r.Outputs {
		start.Exporters = append(start.Exporters, &controlapi.Exporter{Type: out.Type, Attrs: maps.Clone(out.Attrs)})
	}
	if e.spans != nil && !r.Internal {
		if t := e.spans.Record(otelbridge.SpanContext(ctx)); t != nil {
			start.Trace = t
		}
	}
	e.beginning.RLock()
	b, err := e.history.Begin(start)
	e.beginning.RUnlock()
	if err != nil && start.Trace != nil {
		_, _ = start.Trace.WriteTrace(io.Discard, nil)
	}
	return b, err
}

// recordOutcome ends the record of a build.
func (e *Engine) recordOutcome(ctx context.Context, record *history.Build, ref string, res *Response, err error) {
	var answer map[string]string
	switch {
	case res != nil:
		answer = res.Exporter
	case err == nil:
		err = errUnfinished
	}
	if endErr := record.End(ctx, answer, WithCode(err)); endErr != nil {
		e.log.Warn("record the end of a build", "ref", ref, "error", endErr)
	}
}

// recordResult adds what an exporter made to the build's record.
func (b *build) recordResult(ctx context.Context, exporter int, answer map[string]string) {
	encoded := answer[exptypes.ExporterImageDescriptorKey]
	if encoded == "" || !b.record.Recorded() {
		return
	}
	var desc ocispecs.Descriptor
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err == nil {
		err = json.Unmarshal(raw, &desc)
	}
	if err == nil {
		err = b.record.Result(ctx, exporter, desc, b.engine.images.Provider())
	}
	if err != nil {
		b.engine.log.Warn("record the result of a build", "ref", b.ref, "error", err)
	}
}
