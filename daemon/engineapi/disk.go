package engineapi

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/events"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// cacheRecord is one line of the build cache in /system/df.
type cacheRecord struct {
	ID          string
	Parent      string
	Type        string
	Description string
	InUse       bool
	Shared      bool
	Size        int64
	CreatedAt   time.Time
	LastUsedAt  *time.Time
	UsageCount  int
}

// diskUsage is the answer of /system/df.
type diskUsage struct {
	LayersSize  int64
	Images      []imageSummary
	Containers  []any
	Volumes     []any
	BuildCache  []cacheRecord
	BuilderSize int64
}

// systemDF tells what is on disk.
func (a *api) systemDF(w http.ResponseWriter, r *http.Request) error {
	u := diskUsage{Images: []imageSummary{}, Containers: []any{}, Volumes: []any{}, BuildCache: []cacheRecord{}}
	list, err := a.Engine.Usage(r.Context())
	if err != nil {
		return err
	}
	for _, c := range list {
		u.BuildCache = append(u.BuildCache, newCacheRecord(c))
		if !c.Shared {
			u.BuilderSize += c.Size
		}
	}
	images, size, err := a.Images.DiskUsage(r.Context())
	if err != nil {
		return err
	}
	u.LayersSize = size
	for _, i := range images {
		u.Images = append(u.Images, newSummary(i, true))
	}
	return answer(w, u)
}

func newCacheRecord(u layers.Usage) cacheRecord {
	c := cacheRecord{
		ID: u.ID, Type: string(u.Use), Description: u.Description, InUse: u.InUse, Shared: u.Shared,
		Size: u.Size, CreatedAt: u.CreatedAt, UsageCount: u.UsageCount, Parent: strings.Join(u.Parents, ","),
	}
	if !u.LastUsedAt.IsZero() {
		c.LastUsedAt = &u.LastUsedAt
	}
	return c
}

// pruneBuildCache removes what no build uses.
func (a *api) pruneBuildCache(w http.ResponseWriter, r *http.Request) error {
	o, err := pruneOptions(r.URL.Query())
	if err != nil {
		return err
	}
	report := build.CachePruneReport{}
	err = a.Engine.Prune(r.Context(), o, func(u layers.Usage) {
		report.CachesDeleted = append(report.CachesDeleted, u.ID)
		report.SpaceReclaimed += uint64(max(u.Size, 0))
	})
	if err != nil {
		return err
	}
	a.Engine.Events().Publish(events.BuilderEventType, events.ActionPrune, "", map[string]string{
		"reclaimed": strconv.FormatUint(report.SpaceReclaimed, 10),
	})
	return answer(w, report)
}

func pruneOptions(q url.Values) (o layers.PruneOptions, err error) {
	o.All = boolParam(q, "all")
	if v := q.Get("keep-storage"); v != "" {
		if o.Reserved, err = strconv.ParseInt(v, 10, 64); err != nil {
			return o, invalid("keep-storage is in bytes and expects an integer, got %v", v)
		}
	}
	f, err := parseFilters(q, "until", "unused-for", "id", "parent", "type", "description", "inuse", "shared", "private")
	if err != nil {
		return o, err
	}
	if o.KeepDuration, err = keepDuration(f); err != nil {
		return o, err
	}
	o.Filter, err = cacheFilter(f)
	return o, err
}

// keepDuration spares what was used lately.
func keepDuration(f filters) (time.Duration, error) {
	key := "until"
	if len(f["unused-for"]) > 0 {
		if len(f["until"]) > 0 {
			return 0, conflict(`conflicting filters: "until" and "unused-for"`)
		}
		key = "unused-for"
	}
	v, err := f.one(key)
	if v == "" || err != nil {
		return 0, err
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		return 0, invalid("%q filter expects a duration (e.g., '24h')", key)
	}
	return d, nil
}

// cacheFilter turns docker's filters, all of which must match, into one of records.
func cacheFilter(f filters) (func(layers.Usage) bool, error) {
	flags := map[string]bool{}
	for _, key := range []string{"inuse", "shared", "private"} {
		if _, ok := f[key]; !ok {
			continue
		}
		on, err := f.flag(key, true)
		if err != nil {
			return nil, err
		}
		flags[key] = on
	}
	any := func(key string, match func(string) bool) bool {
		return len(f[key]) == 0 || slices.ContainsFunc(f[key], match)
	}
	is := func(key string, value bool) bool {
		want, ok := flags[key]
		return !ok || want == value
	}
	return func(u layers.Usage) bool {
		return any("id", func(v string) bool { return strings.HasPrefix(u.ID, v) }) &&
			any("parent", func(v string) bool {
				return slices.ContainsFunc(u.Parents, func(p string) bool { return strings.HasPrefix(p, v) })
			}) &&
			any("type", func(v string) bool { return string(u.Use) == v }) &&
			any("description", func(v string) bool { return u.Description == v }) &&
			is("inuse", u.InUse) && is("shared", u.Shared) && is("private", !u.Shared)
	}, nil
}
