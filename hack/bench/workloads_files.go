package main

import (
	"fmt"
	"os"
	"path/filepath"
)

const copyAll = "FROM scratch\nCOPY . /\n"

// treeContext builds from a new tree, again, and again after a change.
func treeContext(r *run) error {
	if err := r.start(withSlipway, withBuildctl, buildkit); err != nil {
		return err
	}
	var tree string
	return r.repeat(func(rep int) (err error) {
		if tree, err = r.dockerfile(copyAll); err != nil {
			return err
		}
		if err := makeTree(tree, r.scaled(20_000), uint64(rep)+10); err != nil {
			return err
		}
		return r.settle()
	}, func(s *side, rep int) error {
		q := request{context: tree}
		if err := s.measureBuild("first", q); err != nil {
			return err
		}
		if err := s.measureBuild("unchanged", q); err != nil {
			return err
		}
		changed := filepath.Join(tree, "d00/d0001/file00012.txt")
		if err := os.WriteFile(changed, fmt.Append(nil, s.name, rep), 0o644); err != nil {
			return err
		}
		return s.measureBuild("changed", q)
	}, func(int) error {
		if err := r.floor("first", "", "cp", "-a", tree, r.bench.path("copy")); err != nil {
			return err
		}
		for _, row := range []string{"unchanged", "changed"} {
			if err := r.floorOf(row, func() error { return statTree(tree) }); err != nil {
				return err
			}
		}
		return nil
	})
}

// fileContext builds from a directory with one file, which is another each time.
func fileContext(r *run) error {
	dir, err := r.dockerfile(copyAll)
	if err != nil {
		return err
	}
	big := filepath.Join(dir, "big")
	if err := makeFile(big, int64(r.scaled(512<<20)), 2); err != nil {
		return err
	}
	if err := r.start(withSlipway, withBuildctl, buildkit); err != nil {
		return err
	}
	return r.repeat(func(rep int) error { return alter(big, rep) },
		func(s *side, _ int) error { return s.measureBuild("", request{context: dir}) },
		func(int) error { return r.floor("", "", "cp", big, r.bench.path("copy")) })
}

// output writes what is built already to the client.
func output(r *run) error {
	dir, err := r.dockerfile(copyAll)
	if err != nil {
		return err
	}
	if err := makeTree(dir, r.scaled(20_000), 3); err != nil {
		return err
	}
	if err := r.start(withSlipway, withBuildctl, buildkit); err != nil {
		return err
	}
	if err := r.settle(); err != nil {
		return err
	}
	for _, s := range r.sides {
		if _, err := s.build(request{context: dir}); err != nil {
			return err
		}
	}
	return r.repeat(nil, func(s *side, _ int) error {
		if err := s.measureBuild("local", request{context: dir, output: "type=local,dest=" + r.bench.path("out")}); err != nil {
			return err
		}
		return s.measureBuild("tar", request{context: dir, output: "type=tar,dest=" + r.bench.path("out.tar")})
	}, func(int) error {
		dest := r.bench.path("out")
		if err := os.Mkdir(dest, 0o755); err != nil {
			return err
		}
		if err := r.floor("local", dir, "sh", "-ec", `tar -cf - . | tar -C "$0" -xf -`, dest); err != nil {
			return err
		}
		return r.floor("tar", dir, "tar", "-cf", dest+".tar", ".")
	})
}

// copyFrom copies a tree that was built into another stage, at a new place each time.
func copyFrom(r *run) error {
	dir, err := r.dockerfile("FROM scratch AS tree\nCOPY tree /tree\nFROM scratch\nARG N\nCOPY --from=tree /tree /at-$N\n")
	if err != nil {
		return err
	}
	const each = 128 << 10
	for i := range r.scaled(1 << 30 / each) {
		sub := filepath.Join(dir, fmt.Sprintf("tree/d%03d", i/32))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return err
		}
		if err := makeFile(filepath.Join(sub, fmt.Sprintf("f%05d", i)), each, uint64(i)); err != nil {
			return err
		}
	}
	if err := r.start(withSlipway, withBuildctl, buildkit); err != nil {
		return err
	}
	if err := r.settle(); err != nil {
		return err
	}
	for _, s := range r.sides {
		if _, err := s.build(request{context: dir, args: []string{"N=first"}}); err != nil {
			return err
		}
	}
	return r.repeat(nil, func(s *side, rep int) error {
		return s.measureBuild("", request{context: dir, args: []string{fmt.Sprint("N=", rep)}})
	}, nil)
}
