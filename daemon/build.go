package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	spb "github.com/moby/buildkit/sourcepolicy/pb"
	"github.com/slipwaybuild/slipway/daemon/history"
	"github.com/slipwaybuild/slipway/daemon/sourcepolicy"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/frontend"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/guard"
	"github.com/slipwaybuild/slipway/solver/ops"
	"github.com/slipwaybuild/slipway/solver/progress"
	"github.com/slipwaybuild/slipway/solver/source"
)

// Build runs a build to its end: solves it, writes its outputs, and returns what clients learn. Cancelling ctx cancels the
// build, and only it. Errors carry gRPC codes and the source lines of the step that failed.
func (e *Engine) Build(ctx context.Context, r Request) (res *Response, err error) {
	if err := r.validateRef(); err != nil {
		return nil, err
	}
	values := &guard.Values{}
	record, err := e.remember(ctx, r, values)
	if err != nil {
		return nil, err
	}
	defer func() { e.recordOutcome(ctx, record, r.Ref, res, err) }()
	ctx, done := e.running.start(ctx, r.Ref, r.Owner)
	defer done()
	began := time.Now()
	e.log.Info("build begins", "ref", r.Ref, "frontend", r.Frontend)
	defer func() {
		if err == nil {
			e.good.Add(1)
		} else {
			e.failed.Add(1)
		}
		e.log.Info("build ends", "ref", r.Ref, "took", time.Since(began).Round(time.Millisecond), "error", err)
	}()
	told := guard.NewSink(record, values)
	defer func() {
		told.Flush()
		err = mask(values.Matcher(), err)
	}()
	if err := r.validate(); err != nil {
		return nil, err
	}
	granted, err := e.grant(r.Entitlements)
	if err != nil {
		return nil, err
	}
	exporters, err := e.exportersFor(r.Outputs, 0)
	if err != nil {
		return nil, err
	}
	imports, err := requestedImports(r)
	if err != nil {
		return nil, err
	}
	asked, err := parseAttests(r.FrontendAttrs)
	if err != nil {
		return nil, err
	}
	caches, err := e.newCacheExports(ctx, e.sessions.GroupOf(r.Owner, r.Sessions...).Witnessed(values), r)
	if err != nil {
		return nil, err
	}
	b, err := e.newBuild(r, record, told, values, granted)
	if err != nil {
		return nil, err
	}
	b.attests = asked
	defer func() { e.finish(b) }()
	if r.Driven {
		b.drive(ctx, r)
	}
	b.ImportCaches(imports)
	return b.run(ctx, r, exporters, caches)
}

// exportersFor makes the exporters of outputs, the first of which is number first of the build's.
func (e *Engine) exportersFor(outputs []Output, first int) ([]exporter.Exporter, error) {
	var list []exporter.Exporter
	for i, out := range outputs {
		x, err := e.exporters.New(out.Type, first+i, maps.Clone(out.Attrs))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalidRequest, err)
		}
		list = append(list, x)
	}
	return list, nil
}

// build is one build while it runs.
type build struct {
	engine   *Engine
	ref      string
	sessions *session.Group
	sink     progress.Sink
	record   *history.Build // the sink ends in it
	values   *guard.Values  // the secrets that the build used so far
	solver   *solver.Build
	loader   *ops.Loader
	lessons  lessons
	warned   sync.Map        // what was said once, of the build as a whole
	life     context.Context // ends when the build is closed
	end      context.CancelFunc
	leaks    *ops.Leaks // what is done about secrets that are found in what is built
	guard    *sourcepolicy.Guard
	policy   *spb.Policy // the request's; may be nil
	// policySession says that the guard asks a session.
	policySession bool
	refs          references
	answers       source.Answers
	imports       cacheImports
	after         func(context.Context) error // what the answer does not wait for; nil if there is nothing
	gateway       *Gateway                    // nil unless the client drives the build
	attests       attests
	compat        int // 0: the current version
	scopes        scopes
	id            string // unlike ref, nobody else chooses it
	began         time.Time

	provenanceRecorded bool // or being recorded; of the goroutine that runs the build

	watches    *watches   // nil unless the classic builder builds
	stepImages stepImages // the same
	delivered  delivered
	containers containers
	leftovers  leftovers
	programs   atomic.Int32 // frontends that are programs, now
}

func (e *Engine) newBuild(r Request, record *history.Build, told progress.Sink, values *guard.Values, granted grants) (_ *build, err error) {
	group := e.sessions.GroupOf(r.Owner, r.Sessions...).Witnessed(values)
	b := &build{
		engine: e, ref: r.Ref, sessions: group, sink: told, record: record, values: values, policy: r.SourcePolicy, policySession: r.PolicySession != "",
		id: strings.ToLower(rand.Text()), began: time.Now(), compat: r.Compat, leaks: &ops.Leaks{WarnOnly: e.warnOfLeaks},
	}
	b.life, b.end = context.WithCancel(e.life)
	b.allowLeaks(r.FrontendAttrs)
	if b.guard, err = b.newGuard(r); err != nil {
		b.end()
		return nil, err
	}
	b.imports.remove = append(b.imports.remove, e.mounts.add(group, &b.imports))
	sink := told
	if r.Classic != nil {
		b.watches = newWatches(told, func(ctx context.Context) (*progress.Reader, error) { return e.Progress(ctx, r.Ref) })
		b.stepImages, sink = stepImages{b}, b.watches
	}
	b.solver = e.solver.NewBuild(solver.BuildOptions{ID: r.Ref, Lender: group, Imports: &b.imports, Sink: sink})
	b.loader = e.factory.NewLoader(ops.LoadOptions{
		Entitlements: granted.names, Devices: granted.devices, Solve: b.solveNested, Rewrite: b.guard.Check, Policy: b.policyName(r.SourcePolicy), Answers: &b.answers, Leaks: b.leaks,
		OldModes: r.Compat == exporter.Compat013,
	})
	return b, nil
}

// close gives back what the build holds. What other builds wait for goes on.
func (b *build) close() error {
	b.end()
	b.learned(context.Background()) // nobody asks any more
	err := errors.Join(b.undrive(), b.containers.release(), b.leftovers.release(), b.refs.release(), b.solver.Close(), b.answers.Close())
	b.imports.close()
	b.engine.producers.forget(b)
	if b.watches != nil {
		err = errors.Join(err, b.watches.close())
	}
	return err
}

func (b *build) run(ctx context.Context, r Request, exporters []exporter.Exporter, caches cacheExports) (*Response, error) {
	switch r.Frontend {
	case FrontendResult:
		return b.exportEarlier(ctx, r, exporters, caches)
	case FrontendCompare:
		return b.compareEarlier(ctx, r)
	}
	res, err := b.solve(ctx, r)
	if err != nil {
		return nil, err
	}
	if r.Classic != nil {
		return b.finishClassic(ctx, r, res)
	}
	if r.FrontendAttrs["requestid"] != "" {
		return &Response{Exporter: subrequestAnswer(res)}, nil
	}
	answer, err := b.outputAll(ctx, r, res, exporters, caches)
	if err != nil {
		return nil, err
	}
	return &Response{Exporter: answer}, nil
}

// solve asks the frontend or the client, or loads the definition.
func (b *build) solve(ctx context.Context, r Request) (*frontend.Result, error) {
	switch {
	case b.gateway != nil:
		return b.gateway.wait(ctx)
	case r.Classic != nil:
		return b.solveClassic(ctx, r)
	case r.Frontend != "":
		return b.Frontend(ctx, r.Frontend, frontendRequest(r))
	}
	ref, err := b.Solve(ctx, r.Definition, false)
	if err != nil {
		return nil, err
	}
	return resultOf(ref), nil
}

func frontendRequest(r Request) frontend.Request {
	return frontend.Request{Opts: r.FrontendAttrs, Inputs: r.FrontendInputs, CacheImports: r.CacheImports}
}

// subrequestAnswer is the frontend's answer to a question that is no build, such as its checks.
func subrequestAnswer(res *frontend.Result) map[string]string {
	answer := map[string]string{}
	for k, v := range res.Metadata {
		answer[k] = string(v)
	}
	return answer
}

// epoch is the time that outputs are clamped to, in seconds, if the client asked for one.
func epoch(attrs map[string]string) (*int64, error) {
	v := attrs["build-arg:SOURCE_DATE_EPOCH"]
	if v == "" {
		return nil, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		// The Dockerfile frontend has words of its own for a value it understands.
		return nil, nil
	}
	return &n, nil
}
