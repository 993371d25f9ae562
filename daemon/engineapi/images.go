package engineapi

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/daemon/imageservice"
)

// Images is the local image store and what registries have to do with it; [imageservice.Service] is one, and its methods say what
// these do.
type Images interface {
	List(context.Context, imageservice.ListOptions) ([]imageservice.Summary, error)
	DiskUsage(context.Context) ([]imageservice.Summary, int64, error)
	Inspect(ctx context.Context, ref string) (*imageservice.Details, error)
	History(ctx context.Context, ref string) ([]imageservice.Step, error)
	Tag(ctx context.Context, ref, repo, tag string) error
	Remove(ctx context.Context, ref string, o imageservice.RemoveOptions) ([]imageservice.Removed, error)
	Prune(context.Context, imageservice.PruneOptions) ([]imageservice.Removed, int64, error)
	Save(ctx context.Context, refs []string, open func() io.Writer) error
	Load(context.Context, io.Reader, imageservice.Progress) ([]imageservice.Loaded, error)
	Import(context.Context, io.Reader, imageservice.ImportOptions) (digest.Digest, error)
	Pull(context.Context, reference.Named, *ocispecs.Platform, imageservice.Sessions, imageservice.Progress) error
	PullAll(context.Context, reference.Named, *ocispecs.Platform, imageservice.Sessions, imageservice.Progress) error
	Push(context.Context, reference.Named, imageservice.Sessions, imageservice.Progress, func(imageservice.Pushed)) error
	Remote(context.Context, reference.Named, imageservice.Sessions) (ocispecs.Descriptor, []ocispecs.Platform, error)
	Login(ctx context.Context, host string, sessions imageservice.Sessions) error
}

func (a *api) imageRoutes() []route {
	return []route{
		{http.MethodGet, "/images/json", a.listImages},
		{http.MethodGet, "/images/get", a.saveImages},
		{http.MethodGet, "/images/search", a.searchImages},
		{http.MethodPost, "/images/create", a.createImage},
		{http.MethodPost, "/images/load", a.loadImages},
		{http.MethodPost, "/images/prune", a.pruneImages},
		{http.MethodGet, "/images/{name...}/json", a.inspectImage},
		{http.MethodGet, "/images/{name...}/history", a.imageHistory},
		{http.MethodGet, "/images/{name...}/get", a.saveImage},
		{http.MethodPost, "/images/{name...}/tag", a.tagImage},
		{http.MethodPost, "/images/{name...}/push", a.pushImage},
		{http.MethodDelete, "/images/{name...}", a.removeImage},
		{http.MethodGet, "/distribution/{name...}/json", a.distribution},
		{http.MethodPost, "/auth", a.login},
	}
}

// imageSummary is one line of a list.
type imageSummary struct {
	ID          string `json:"Id"`
	ParentID    string `json:"ParentId"`
	RepoTags    []string
	RepoDigests []string
	Created     int64
	Size        int64
	VirtualSize int64
	SharedSize  int64
	Labels      map[string]string
	Containers  int64
}

// newSummary is as clients up to API 1.42 read it. Nothing is told of what is shared unless asked for.
func newSummary(s imageservice.Summary, shared bool) imageSummary {
	out := imageSummary{
		ID: s.ID.String(), RepoTags: s.Tags, RepoDigests: s.Digests, Created: unixOr0(s.Created),
		Size: s.Size, VirtualSize: s.Size, SharedSize: -1, Labels: s.Labels, Containers: -1,
	}
	if shared {
		out.SharedSize, out.Containers = s.Shared, 0
	}
	switch {
	case len(s.Tags) == 0 && len(s.Digests) == 0:
		out.RepoTags, out.RepoDigests = []string{"<none>:<none>"}, []string{"<none>@<none>"}
	case len(s.Tags) == 0:
		out.RepoTags = []string{}
	}
	return out
}

func unixOr0(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func (a *api) listImages(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	o, err := listOptions(q)
	if err != nil {
		return err
	}
	list, err := a.Images.List(r.Context(), o)
	if err != nil {
		return err
	}
	out := []imageSummary{}
	for _, s := range list {
		sum := newSummary(s, false)
		if boolParam(q, "shared-size") {
			sum.SharedSize = s.Shared
		}
		out = append(out, sum)
	}
	return answer(w, out)
}

func listOptions(q url.Values) (o imageservice.ListOptions, err error) {
	f, err := parseFilters(q, "dangling", "label", "label!", "before", "since", "until", "reference")
	if err != nil {
		return o, err
	}
	if _, ok := f["dangling"]; ok {
		on, err := f.flag("dangling", false)
		if err != nil {
			return o, err
		}
		o.Dangling = &on
	}
	o.Intermediate = boolParam(q, "all")
	o.Labels, o.NotLabels, o.References = f["label"], f["label!"], f["reference"]
	if v := q.Get("filter"); v != "" { // before API 1.28
		o.References = append(o.References, v)
	}
	if o.Before, err = f.one("before"); err != nil {
		return o, err
	}
	if o.Since, err = f.one("since"); err != nil {
		return o, err
	}
	o.Until, err = f.until()
	return o, err
}

// until reads the filter of that name: a time, or how long ago it was; zero without it.
func (f filters) until() (time.Time, error) {
	v, err := f.one("until")
	if v == "" || err != nil {
		return time.Time{}, err
	}
	if d, err := time.ParseDuration(v); err == nil {
		return time.Now().Add(-d), nil
	}
	if n, err := strconv.ParseFloat(v, 64); err == nil {
		return time.Unix(int64(n), 0), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, v, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, invalid("invalid filter 'until=%s': neither a time nor a duration", v)
}
