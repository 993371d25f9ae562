package engineapi

import (
	"net/http"

	"github.com/slipwaybuild/slipway/daemon/imageservice"
)

func (a *api) tagImage(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	if err := a.Images.Tag(r.Context(), r.PathValue("name"), q.Get("repo"), q.Get("tag")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

// removedImage says what went: one of the two.
type removedImage struct {
	Untagged string `json:",omitempty"`
	Deleted  string `json:",omitempty"`
}

func newRemoved(list []imageservice.Removed) []removedImage {
	var out []removedImage
	for _, one := range list {
		out = append(out, removedImage(one))
	}
	return out
}

func (a *api) removeImage(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	o := imageservice.RemoveOptions{Force: boolParam(q, "force"), KeepParents: boolParam(q, "noprune")}
	list, err := a.Images.Remove(r.Context(), r.PathValue("name"), o)
	if err != nil {
		return err
	}
	out := newRemoved(list)
	if out == nil {
		out = []removedImage{}
	}
	return answer(w, out)
}

func (a *api) pruneImages(w http.ResponseWriter, r *http.Request) error {
	f, err := parseFilters(r.URL.Query(), "dangling", "label", "label!", "until")
	if err != nil {
		return err
	}
	dangling, err := f.flag("dangling", true)
	if err != nil {
		return err
	}
	o := imageservice.PruneOptions{All: !dangling, Labels: f["label"], NotLabels: f["label!"]}
	if o.Until, err = f.until(); err != nil {
		return err
	}
	list, freed, err := a.Images.Prune(r.Context(), o)
	if err != nil {
		return err
	}
	return answer(w, map[string]any{"ImagesDeleted": newRemoved(list), "SpaceReclaimed": freed})
}
