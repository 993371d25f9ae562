package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/exporter/attrs"
	"github.com/slipwaybuild/slipway/solver/cachestore"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// FrontendCompare is the frontend of requests that build nothing: the answer says in what the results of two earlier builds differ, which
// the options [attrFirst] and [attrSecond] name. It has the keys of other questions to frontends: "result.txt", "result.json",
// and "result.statuscode", which is 1 if anything differs.
const FrontendCompare = "slipway.compare"

// Options of [FrontendCompare].
const (
	attrFirst  = "first"
	attrSecond = "second"
	// attrRewrite says that outputs set later times back to SOURCE_DATE_EPOCH, so that it does not matter which they are.
	attrRewrite = "rewrite-timestamp"
	// attrImage says that an output is an image, whose config tells when it was made unless there is a SOURCE_DATE_EPOCH.
	attrImage = "image"
)

// maxDifferences is how many names are listed of one layer.
const maxDifferences = 100

// Differing is what differs between two results, as clients get it in JSON.
type Differing struct {
	First  string `json:"first"`
	Second string `json:"second"`
	// Steps hold the differences of what steps added, in the order of the steps.
	Steps []DifferingPart `json:"steps,omitempty"`
	// Configs hold those of image configs, by platform.
	Configs []DifferingPart `json:"configs,omitempty"`
}

// DifferingPart is a step or a config.
type DifferingPart struct {
	Name  string           `json:"name"`
	Paths []DifferingPaths `json:"paths"`
	// More is how many paths are not listed.
	More int `json:"more,omitempty"`
}

// DifferingPaths is a path in a layer or in a config.
type DifferingPaths struct {
	Path string   `json:"path"`
	What []string `json:"what"`
}

func (d Differing) any() bool { return len(d.Steps)+len(d.Configs) > 0 }

// text is for people.
func (d Differing) text() string {
	if !d.any() {
		return "reproducible: two builds without cache gave the same\n"
	}
	var b strings.Builder
	for _, list := range [][]DifferingPart{d.Steps, d.Configs} {
		for _, part := range list {
			fmt.Fprintf(&b, "%s\n", part.Name)
			for _, p := range part.Paths {
				fmt.Fprintf(&b, "  %s: %s\n", p.Path, strings.Join(p.What, "; "))
			}
			if part.More > 0 {
				fmt.Fprintf(&b, "  and %d more\n", part.More)
			}
		}
	}
	return b.String()
}

// compareEarlier answers the question of [FrontendCompare].
func (b *build) compareEarlier(ctx context.Context, r Request) (*Response, error) {
	first, x, err := b.engine.keptOf(ctx, r.FrontendAttrs[attrFirst])
	if err != nil {
		return nil, err
	}
	second, y, err := b.engine.keptOf(ctx, r.FrontendAttrs[attrSecond])
	if err != nil {
		return nil, err
	}
	if x.Steps == nil || y.Steps == nil {
		return nil, fmt.Errorf("%w: only builds with the option %s can be compared", ErrInvalidRequest, attrKeepSteps)
	}
	latest, err := x.latest()
	if err != nil {
		return nil, err
	}
	c := resultComparison{build: b, first: first, second: second, seen: map[[2]layers.ID]bool{}}
	if latest != nil && isTrue(r.FrontendAttrs[attrRewrite]) {
		c.latest = *latest
	}
	found := Differing{First: first, Second: second}
	if found.Steps, err = c.steps(ctx, x.Steps, y.Steps); err != nil {
		return nil, err
	}
	found.Configs = differentConfigs(x, y)
	if latest == nil && isTrue(r.FrontendAttrs[attrImage]) {
		part := DifferingPart{Name: "config of the image"}
		part.add(DifferingPaths{Path: "created", What: []string{"is the time of the build, since there is no SOURCE_DATE_EPOCH"}})
		found.Configs = append(found.Configs, part)
	}
	encoded, err := json.Marshal(found)
	if err != nil {
		return nil, err
	}
	code := 0
	if found.any() {
		code = 1
	}
	return &Response{Exporter: map[string]string{
		"result.txt": found.text(), "result.json": string(encoded), "result.statuscode": strconv.Itoa(code),
	}}, nil
}

func isTrue(v string) bool {
	on, err := strconv.ParseBool(v)
	return err == nil && on
}

// latest is the SOURCE_DATE_EPOCH of a result; nil if it has none.
func (k kept) latest() (*time.Time, error) {
	if len(k.Platforms) == 0 {
		return nil, nil
	}
	return exporter.Input{Metadata: k.Metadata, SourceDateEpoch: k.Epoch}.Epoch(attrs.Epoch{}, k.Platforms[0].ID)
}

// resultComparison compares what the steps of two builds made. A layer that is part of many results counts where it was made.
type resultComparison struct {
	build         *build
	first, second string
	latest        time.Time
	seen          map[[2]layers.ID]bool
}

func (c *resultComparison) steps(ctx context.Context, xs, ys []keptStep) (parts []DifferingPart, err error) {
	for i := range max(len(xs), len(ys)) {
		if i >= len(xs) || i >= len(ys) || xs[i].Name != ys[i].Name || len(xs[i].Outputs) != len(ys[i].Outputs) {
			// What was built depends on what was found: from here on there is nothing to compare.
			what := fmt.Sprintf("the first build has %d steps, the second %d", len(xs), len(ys))
			if i < len(xs) && i < len(ys) {
				what = fmt.Sprintf("the first build has this step, the second has %q", ys[i].Name)
			}
			name := "(end)"
			if i < len(xs) {
				name = xs[i].Name
			} else if i < len(ys) {
				name = ys[i].Name
			}
			return append(parts, DifferingPart{Name: name, Paths: []DifferingPaths{{Path: "(step)", What: []string{what}}}}), nil
		}
		part := DifferingPart{Name: xs[i].Name}
		for n := range xs[i].Outputs {
			if err := c.stacks(ctx, &part, xs[i].Outputs[n], ys[i].Outputs[n]); err != nil {
				return nil, fmt.Errorf("compare %s: %w", xs[i].Name, err)
			}
		}
		if len(part.Paths) > 0 {
			parts = append(parts, part)
		}
	}
	return parts, nil
}

// stacks compares the layers of one output.
func (c *resultComparison) stacks(ctx context.Context, part *DifferingPart, x, y cachestore.Stack) (err error) {
	a, err := c.find(ctx, c.first, x)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Release()) }()
	b, err := c.find(ctx, c.second, y)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Release()) }()
	as, bs := a.IDs(), b.IDs()
	if len(as) != len(bs) {
		part.add(DifferingPaths{Path: "(layers)", What: []string{fmt.Sprintf("%d, %d", len(as), len(bs))}})
		return nil
	}
	for i := range as {
		pair := [2]layers.ID{as[i], bs[i]}
		if as[i] == bs[i] || c.seen[pair] {
			continue
		}
		c.seen[pair] = true
		if err := c.layer(ctx, part, a, b, i); err != nil {
			return err
		}
	}
	return nil
}

func (c *resultComparison) find(ctx context.Context, ref string, s cachestore.Stack) (*layers.Ref, error) {
	r, err := c.build.engine.cache.Find(ctx, s)
	if errors.Is(err, layers.ErrNotFound) {
		return nil, fmt.Errorf("%w: layers of build %s are gone: build it again", ErrPruned, ref)
	}
	return r, err
}

// layer compares the layers at one height of two stacks.
func (c *resultComparison) layer(ctx context.Context, part *DifferingPart, a, b *layers.Ref, i int) (err error) {
	store := c.build.engine.layers
	x, y := store.Slice(a, i, i+1), store.Slice(b, i, i+1)
	defer func() { err = errors.Join(err, x.Release(), y.Release()) }()
	xid, err := store.Solidify(ctx, x)
	if err != nil {
		return err
	}
	yid, err := store.Solidify(ctx, y)
	if err != nil {
		return err
	}
	if xid[0] == yid[0] {
		return nil
	}
	s, err := store.LayerTree(ctx, x, 0)
	if err != nil {
		return err
	}
	t, err := store.LayerTree(ctx, y, 0)
	if err != nil {
		return err
	}
	any := false
	err = fstree.Differences(ctx, s, t, fstree.DifferenceOptions{Latest: c.latest}, func(d fstree.Difference) error {
		any = true
		part.add(DifferingPaths{Path: "/" + d.Path, What: d.What})
		return nil
	})
	if err == nil && !any && c.latest.IsZero() {
		part.add(DifferingPaths{Path: "(layer)", What: []string{fmt.Sprintf("digest %s, %s", xid[0], yid[0])}})
	}
	return err
}

func (p *DifferingPart) add(d DifferingPaths) {
	if len(p.Paths) >= maxDifferences {
		p.More++
		return
	}
	p.Paths = append(p.Paths, d)
}

// differentConfigs compares the configs of images.
func differentConfigs(x, y kept) (parts []DifferingPart) {
	for i := range max(len(x.Platforms), len(y.Platforms)) {
		if i >= len(x.Platforms) || i >= len(y.Platforms) || x.Platforms[i].ID != y.Platforms[i].ID {
			what := fmt.Sprintf("%d, %d", len(x.Platforms), len(y.Platforms))
			return append(parts, DifferingPart{Name: "platforms of the result", Paths: []DifferingPaths{{Path: "(platforms)", What: []string{what}}}})
		}
		p, q := x.Platforms[i], y.Platforms[i]
		if bytes.Equal(p.Config, q.Config) {
			continue
		}
		part := DifferingPart{Name: "config of the image for " + p.ID}
		var a, b any
		if json.Unmarshal(p.Config, &a) != nil || json.Unmarshal(q.Config, &b) != nil {
			part.add(DifferingPaths{Path: "(config)", What: []string{"bytes"}})
		} else {
			part.json("", a, b)
		}
		if len(part.Paths) > 0 {
			parts = append(parts, part)
		}
	}
	return parts
}

// json lists where two values differ, by path.
func (p *DifferingPart) json(path string, a, b any) {
	am, aok := a.(map[string]any)
	bm, bok := b.(map[string]any)
	if aok && bok {
		keys := slices.AppendSeq(slices.Collect(maps.Keys(am)), maps.Keys(bm))
		slices.Sort(keys)
		for _, k := range slices.Compact(keys) {
			p.json(path+"."+k, am[k], bm[k])
		}
		return
	}
	al, aok := a.([]any)
	bl, bok := b.([]any)
	if aok && bok && len(al) == len(bl) {
		for i := range al {
			p.json(fmt.Sprintf("%s[%d]", path, i), al[i], bl[i])
		}
		return
	}
	if !reflect.DeepEqual(a, b) {
		p.add(DifferingPaths{Path: strings.TrimPrefix(path, "."), What: []string{fmt.Sprintf("%s, %s", shortJSON(a), shortJSON(b))}})
	}
}

func shortJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // it came from JSON
	}
	const most = 80
	if len(b) > most {
		return string(b[:most]) + "…"
	}
	return string(b)
}
