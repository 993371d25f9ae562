package main

import (
	"fmt"
	"path/filepath"
)

// image stores and pushes a layer that was built from a context before. Each time it is another, so nothing compressed is there yet.
func image(r *run) error {
	dir, err := r.dockerfile(copyAll)
	if err != nil {
		return err
	}
	big := filepath.Join(dir, "big")
	if err := makeFile(big, int64(r.scaled(512<<20)), 4); err != nil {
		return err
	}
	if err := r.start(withSlipway, withBuildctl, buildkit); err != nil {
		return err
	}
	outputs := map[string]string{
		"store": "type=image,name=bench.local/image",
		"gzip":  "type=image,push=true,oci-mediatypes=true,compression=gzip,name=" + r.bench.registry.host + "/gzip",
		"zstd":  "type=image,push=true,oci-mediatypes=true,compression=zstd,name=" + r.bench.registry.host + "/zstd",
	}
	// The registry would have the second side's blobs from the first one's push: each side has a file, and names, of its own.
	return r.repeat(nil, func(s *side, rep int) error {
		for i, row := range []string{"store", "gzip", "zstd"} {
			if err := alter(big, (rep*len(r.sides)+s.index())*3+i); err != nil {
				return err
			}
			if err := r.settle(); err != nil {
				return err
			}
			q := request{context: dir}
			if _, err := s.build(q); err != nil {
				return err
			}
			q.output = outputs[row]
			if err := s.measureBuild(row, q); err != nil {
				return err
			}
		}
		return nil
	}, func(int) error { return r.floor("store", "", "sha256sum", big) })
}

// pull starts with daemons that know nothing, each time.
func pull(r *run) error {
	var layers []string
	busybox := filepath.Join(r.bench.registry.dir, "busybox.tar")
	layers = append(layers, busybox)
	for i := range 10 {
		file := r.bench.path("layer.tar.gz")
		if err := makeLayer(file, int64(r.scaled(100<<20)), uint64(i)+20); err != nil {
			return err
		}
		layers = append(layers, file)
	}
	ref, err := r.bench.registry.push(r.ctx, "large", layers...)
	if err != nil {
		return err
	}
	unpack, err := r.dockerfile("FROM " + ref + "\nRUN : 1\n")
	if err != nil {
		return err
	}
	label, err := r.dockerfile("FROM " + ref + "\nARG N\nLABEL n=$N\n")
	if err != nil {
		return err
	}
	r.with(withSlipway, withBuildctl, buildkit)
	return r.repeat(nil, func(s *side, rep int) error {
		if err := s.renew(); err != nil {
			return err
		}
		push := "type=image,push=true,name=" + r.bench.registry.host + "/" + fmt.Sprintf("label%d-%d", s.index(), rep)
		if err := s.measureBuild("label", request{context: label, args: []string{fmt.Sprint("N=", s.name, rep)}, output: push}); err != nil {
			return err
		}
		if err := s.renew(); err != nil {
			return err
		}
		return s.measureBuild("unpack", request{context: unpack})
	}, nil)
}
