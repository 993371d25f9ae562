package main

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"

	"github.com/moby/buildkit/client/llb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// unchanged builds what was built before. The image goes into the local store, as most people's do.
func unchanged(r *run) error {
	text := "FROM " + r.bench.base + "\nWORKDIR /app\nENV A=1\nCOPY Dockerfile ./\nCOPY src ./src\n" + lines(12, "RUN : step %d\n") +
		"LABEL a=b\nEXPOSE 80\nCMD [\"true\"]\n"
	dir, err := r.dockerfile(text)
	if err != nil {
		return err
	}
	if err := makeTree(filepath.Join(dir, "src"), r.scaled(200), 1); err != nil {
		return err
	}
	if err := r.start(withSlipway, withBuildctl, buildkit); err != nil {
		return err
	}
	if err := r.settle(); err != nil {
		return err
	}
	q := request{context: dir, output: "type=image,name=bench.local/unchanged"}
	for _, s := range r.sides {
		for range 2 {
			if _, err := s.build(q); err != nil {
				return err
			}
		}
	}
	r.n *= 4 // it is short
	return r.repeat(nil, func(s *side, _ int) error { return s.measureBuild("", q) },
		func(int) error { return r.floor("", "", r.bench.programs.empty) })
}

// rebuilt measures a Dockerfile that begins with ARG N, after a build of it that brings the base image.
func (r *run) rebuilt(text string, floor func(int) error) error {
	dir, err := r.dockerfile(text)
	if err != nil {
		return err
	}
	if err := r.start(withSlipway, withBuildctl, buildkit); err != nil {
		return err
	}
	for _, s := range r.sides {
		if _, err := s.build(request{context: dir, args: []string{"N=first"}}); err != nil {
			return err
		}
	}
	return r.repeat(nil, func(s *side, rep int) error {
		return s.measureBuild("", request{context: dir, args: []string{fmt.Sprint("N=", rep)}})
	}, floor)
}

func sequentialRuns(r *run) error {
	bundle := r.bench.path("bundle")
	if err := makeBundle(r.bench.options.runtime, bundle); err != nil {
		return err
	}
	n := r.scaled(40)
	script := fmt.Sprintf("for i in $(seq %d); do %s run slipway-bench-$$-$i; done", n, r.bench.options.runtime)
	return r.rebuilt("FROM "+r.bench.base+"\nARG N\n"+lines(n, "RUN : %d\n"),
		func(int) error { return r.floor("", bundle, "sh", "-ec", script) })
}

func stages(r *run) error {
	n := r.scaled(32)
	return r.rebuilt("ARG N\n"+lines(n, "FROM "+r.bench.base+" AS s%d\nARG N\nRUN echo $N %d > /out%d\n")+
		"FROM "+r.bench.base+"\n"+lines(n, "COPY --from=s%d /out%d /\n"), nil)
}

// graph is chains of files, the last of each of which is copied into one directory.
func graph(r *run) error {
	if err := r.start(withBuildctl, buildkit); err != nil {
		return err
	}
	var definition []byte
	return r.repeat(func(rep int) (err error) {
		definition, err = graphOf(r.ctx, r.scaled(100), 20, rep)
		return err
	}, func(s *side, _ int) error {
		for _, row := range []string{"cold", "warm"} {
			if err := s.measureBuild(row, request{llb: definition}); err != nil {
				return err
			}
		}
		return nil
	}, nil)
}

func graphOf(ctx context.Context, chains, length, rep int) ([]byte, error) {
	out := llb.Scratch()
	for c := range chains {
		chain := llb.Scratch()
		for i := range length {
			chain = chain.File(llb.Mkfile(fmt.Sprintf("/f%d", i), 0o644, fmt.Appendf(nil, "%d %d %d", rep, c, i)))
		}
		out = out.File(llb.Copy(chain, fmt.Sprintf("/f%d", length-1), fmt.Sprintf("/c%d", c)))
	}
	d, err := out.Marshal(ctx, llb.Platform(ocispecs.Platform{OS: "linux", Architecture: architecture()}))
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := llb.WriteTo(d, &b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
