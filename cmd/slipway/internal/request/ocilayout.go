package request

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/session"
)

const layoutScheme = "oci-layout://"

// maxIndex bounds the index of a layout, in bytes.
const maxIndex = 8 << 20

// addLayout offers the image layout at "path[:tag][@digest]" under a store of its own and returns how the frontend finds the image
// in it.
func (s *sources) addLayout(where string) (string, error) {
	path, want, pinned := strings.Cut(strings.TrimPrefix(where, layoutScheme), "@")
	tag := "latest"
	if i := strings.LastIndexByte(path, ':'); i > strings.LastIndexByte(path, '/') {
		path, tag = path[:i], path[i+1:]
	}
	d := digest.Digest(want)
	if pinned {
		if err := d.Validate(); err != nil {
			return "", fmt.Errorf("digest %q: %w", want, err)
		}
	} else {
		var err error
		if d, err = findInLayout(path, tag); err != nil {
			return "", err
		}
	}
	store, err := local.NewStore(path)
	if err != nil {
		return "", fmt.Errorf("open image layout %s: %w", path, err)
	}
	if s.stores == nil {
		s.stores = map[string]content.Store{}
	}
	id := session.NewID()
	s.stores["oci:"+id] = store
	return layoutScheme + id + ":" + tag + "@" + d.String(), nil
}

// findInLayout looks a tag up in a layout. Where no image has a tag, and there is but one, it is that one.
func findInLayout(path, tag string) (digest.Digest, error) {
	name := filepath.Join(path, ocispecs.ImageIndexFile)
	fi, err := os.Stat(name)
	if err != nil {
		return "", fmt.Errorf("read image layout: %w", err)
	}
	if fi.Size() > maxIndex {
		return "", fmt.Errorf("read image layout: %s is larger than %d bytes", name, maxIndex)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("read image layout: %w", err)
	}
	var idx ocispecs.Index
	if err := json.Unmarshal(b, &idx); err != nil {
		return "", fmt.Errorf("read image layout: %s: %w", name, err)
	}
	for _, m := range idx.Manifests {
		if m.Annotations[ocispecs.AnnotationRefName] == tag {
			return m.Digest, m.Digest.Validate()
		}
	}
	if len(idx.Manifests) == 1 && idx.Manifests[0].Annotations[ocispecs.AnnotationRefName] == "" {
		return idx.Manifests[0].Digest, idx.Manifests[0].Digest.Validate()
	}
	if len(idx.Manifests) == 0 {
		return "", errors.New("the image layout holds no image")
	}
	return "", fmt.Errorf("the image layout has no image with the tag %q", tag)
}
