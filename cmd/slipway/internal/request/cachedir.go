package request

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/plugins/content/local"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client/ociindex"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// cacheDir is a directory that a cache is written to.
type cacheDir struct {
	number    int // of the export
	path, tag string
	reset     bool // remove what nothing refers to any more
	store     content.Store
}

// importDir offers the directory that a cache is read from. It returns a warning, and no error, if there is no cache in it.
func (s *sources) importDir(e *controlapi.CacheOptionsEntry) (warning string, err error) {
	path := e.Attrs["src"]
	if path == "" {
		return "", errors.New("local cache importer requires src")
	}
	if e.Attrs["digest"] == "" {
		d, err := tagged(path, e.Attrs["tag"])
		if err != nil || d == "" {
			return fmt.Sprintf("local cache import at %s skipped: %v", path, orMissing(err)), nil
		}
		e.Attrs["digest"] = d.String()
	}
	store, err := local.NewStore(path)
	if err != nil {
		return fmt.Sprintf("local cache import at %s skipped: %v", path, err), nil
	}
	s.addStore("local:"+path, store)
	return "", nil
}

func orMissing(err error) error {
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return errors.New("there is no such cache")
	}
	return err
}

// exportDir offers the directory that a cache is written to, and says what is there already, so that it is added to.
func (s *sources) exportDir(e *controlapi.CacheOptionsEntry) (d cacheDir, err error) {
	d = cacheDir{path: e.Attrs["dest"], tag: tagOr(e.Attrs["tag"])}
	if d.path == "" {
		return d, errors.New("local cache exporter requires dest")
	}
	if v, ok := e.Attrs["reset"]; ok {
		if d.reset, err = strconv.ParseBool(v); err != nil {
			return d, fmt.Errorf("failed to parse reset attribute: %w", err)
		}
	}
	if err := os.MkdirAll(d.path, 0o755); err != nil {
		return d, err
	}
	if d.store, err = local.NewStore(d.path); err != nil {
		return d, err
	}
	s.addStore("local:"+d.path, d.store)
	now, err := tagged(d.path, d.tag)
	if err != nil {
		return d, err
	}
	if now != "" && e.Attrs["digest"] == "" {
		e.Attrs["digest"] = now.String()
	}
	return d, nil
}

func (s *sources) addStore(id string, store content.Store) {
	if s.stores == nil {
		s.stores = map[string]content.Store{}
	}
	s.stores[id] = store
}

func tagOr(tag string) string {
	if tag == "" {
		return "latest"
	}
	return tag
}

// tagged looks a tag up in a directory of caches; "" if there is none.
func tagged(path, tag string) (digest.Digest, error) {
	if _, err := os.Stat(path); err != nil {
		return "", err
	}
	if _, err := os.Stat(path + "/" + ocispecs.ImageIndexFile); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	desc, err := ociindex.NewStoreIndex(path).Get(tagOr(tag))
	if err != nil || desc == nil {
		return "", err
	}
	return desc.Digest, nil
}

// FinishCaches names in their directories the caches that were written.
func (p *Prepared) FinishCaches(ctx context.Context, answer map[string]string) error {
	for _, d := range p.cacheDirs {
		text := answer[fmt.Sprintf("cache.%d.manifest", d.number)]
		if text == "" {
			continue // nothing was written
		}
		var desc ocispecs.Descriptor
		if err := json.Unmarshal([]byte(text), &desc); err != nil {
			return fmt.Errorf("descriptor of the cache: %w", err)
		}
		if err := ociindex.NewStoreIndex(d.path).Put(desc, ociindex.Tag(d.tag)); err != nil {
			return fmt.Errorf("name the cache in %s: %w", d.path, err)
		}
		if d.reset {
			if err := d.sweep(ctx); err != nil {
				return fmt.Errorf("remove what is unused in %s: %w", d.path, err)
			}
		}
	}
	return nil
}

// sweep removes the blobs that nothing in the index leads to.
func (d cacheDir) sweep(ctx context.Context) error {
	index, err := ociindex.NewStoreIndex(d.path).Read()
	if err != nil {
		return err
	}
	var mu sync.Mutex
	used := map[digest.Digest]bool{}
	children := images.ChildrenHandler(d.store)
	err = images.Dispatch(ctx, images.HandlerFunc(func(ctx context.Context, desc ocispecs.Descriptor) ([]ocispecs.Descriptor, error) {
		mu.Lock()
		used[desc.Digest] = true
		mu.Unlock()
		return children(ctx, desc)
	}), nil, index.Manifests...)
	if err != nil {
		return err
	}
	var unused []digest.Digest
	err = d.store.Walk(ctx, func(i content.Info) error {
		if !used[i.Digest] {
			unused = append(unused, i.Digest)
		}
		return nil
	})
	for _, u := range unused {
		err = errors.Join(err, d.store.Delete(ctx, u))
	}
	return err
}
