package main

import "time"

// workloads are those of the project's aims, in the order of the page.
func workloads() []workload {
	return []workload{
		{
			name: "unchanged", title: "unchanged rebuild of a Dockerfile of 20 steps", run: unchanged,
			rows: []row{{floor: "start of an empty Go program", reach: map[string]float64{withSlipway: 0.4, withBuildctl: 0.6}, limit: 30 * time.Millisecond}},
		},
		{
			name: "runs", title: "40 trivial `RUN`s, one after the other", run: sequentialRuns,
			rows: []row{{floor: "40 × `runc run`", reach: both(0.5)}},
		},
		{
			name: "stages", title: "32 stages with a `RUN` each, and 32 `COPY --from`", run: stages,
			rows: []row{{reach: both(0.5)}},
		},
		{
			name: "graph", title: "2,000 vertices of LLB without containers", run: graph,
			rows: []row{
				{name: "cold", title: "cold", reach: map[string]float64{withBuildctl: 0.3}, memory: 0.3},
				{name: "warm", title: "warm", reach: map[string]float64{withBuildctl: 0.3}, memory: 0.3},
			},
		},
		{
			name: "tree", title: "context of 20,000 small files", run: treeContext,
			rows: []row{
				{name: "first", title: "first build", floor: "`cp -a`", reach: map[string]float64{withSlipway: 0.4, withBuildctl: 0.7}},
				{name: "unchanged", title: "unchanged", floor: "`lstat` of all", reach: map[string]float64{withSlipway: 0.25, withBuildctl: 0.5}},
				{name: "changed", title: "one file changed", floor: "`lstat` of all", reach: map[string]float64{withSlipway: 0.25, withBuildctl: 0.5}},
			},
		},
		{
			name: "file", title: "context of one file of 512 MB, `COPY` to scratch", run: fileContext, heavy: true,
			rows: []row{{floor: "`cp`", reach: map[string]float64{withSlipway: 0.35, withBuildctl: 0.6}}},
		},
		{
			name: "output", title: "output of 20,000 files", run: output,
			rows: []row{
				{name: "local", title: "`type=local`", floor: "`tar` pipe", reach: map[string]float64{withSlipway: 0.35, withBuildctl: 0.7}},
				{name: "tar", title: "`type=tar`", floor: "`tar`", reach: map[string]float64{withSlipway: 0.35, withBuildctl: 0.7}},
			},
		},
		{
			name: "image", title: "image of a layer of 512 MB that is built already", run: image, heavy: true,
			rows: []row{
				{name: "store", title: "into the local store", floor: "`sha256sum`", reach: both(0.15)},
				{name: "gzip", title: "pushed with gzip", reach: both(0.4)},
				{name: "zstd", title: "pushed with zstd", reach: both(0.4)},
			},
		},
		{
			name: "copyfrom", title: "`COPY --from` of a tree of 1 GB", run: copyFrom, heavy: true,
			rows: []row{{reach: both(0.2)}},
		},
		{
			name: "pull", title: "image of 10 layers, 1 GB", run: pull, heavy: true,
			rows: []row{
				{name: "unpack", title: "pulled, and a `RUN` on it", reach: both(0.7)},
				{name: "label", title: "label added, pushed elsewhere", reach: both(0.2)},
			},
		},
		{
			name: "monorepo", title: "32 builds at once from one context of 50,000 files", run: monorepo, heavy: true,
			rows: []row{{reach: both(0.5), memory: 0.5}},
		},
		{
			name: "start", title: "daemon with an empty root", run: start,
			rows: []row{
				{name: "build", title: "start to the end of the first build", reach: both(0.7)},
				{name: "idle", title: "memory after that", memory: 0.5, onlyMemory: true},
			},
		},
		{
			name: "growth", title: "memory after builds with a `RUN` each", run: growth,
			rows: []row{
				{name: "10", title: "after 10", onlyMemory: true},
				{name: "1000", title: "after 1,000", onlyMemory: true, against: "10", memory: 1.1},
			},
		},
	}
}

// both is an aim whatever the client.
func both(part float64) map[string]float64 {
	return map[string]float64{withSlipway: part, withBuildctl: part}
}
