package history

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/pkg/filters"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/util/gitutil"
	"github.com/tonistiigi/go-csvvalue"
	"google.golang.org/grpc/codes"
)

// matcher tells whether a record is wanted.
type matcher func(*controlapi.BuildHistoryRecord) bool

// parseFilters reads BuildKit's history filters: of several any may match; one is a list of conditions, separated by commas, that must all
// hold. Times compare with <, <=, > and >= (startedAt, completedAt: a time, or a duration before now; duration); ref, repository and status
// compare as containerd's filters do.
func parseFilters(list []string, now time.Time) (matcher, error) {
	var alternatives []matcher
	for _, text := range list {
		if strings.TrimSpace(text) == "" {
			continue
		}
		m, err := parseFilter(text, now)
		if err != nil {
			return nil, fmt.Errorf("%w %q: %w", ErrFilter, text, err)
		}
		alternatives = append(alternatives, m)
	}
	return func(r *controlapi.BuildHistoryRecord) bool {
		return len(alternatives) == 0 || slices.ContainsFunc(alternatives, func(m matcher) bool { return m(r) })
	}, nil
}

func parseFilter(text string, now time.Time) (matcher, error) {
	conditions, err := csvvalue.Fields(text, nil)
	if err != nil {
		return nil, err
	}
	var all []matcher
	var others []string
	for _, c := range conditions {
		m, err := parseTime(c, now)
		switch {
		case err != nil:
			return nil, err
		case m != nil:
			all = append(all, m)
		default:
			others = append(others, c)
		}
	}
	if len(others) > 0 {
		f, err := filters.Parse(strings.Join(others, ","))
		if err != nil {
			return nil, err
		}
		all = append(all, func(r *controlapi.BuildHistoryRecord) bool { return f.Match(adaptor(r)) })
	}
	return func(r *controlapi.BuildHistoryRecord) bool {
		return !slices.ContainsFunc(all, func(m matcher) bool { return !m(r) })
	}, nil
}

// parseTime reads a condition on a time; nil if it is none.
func parseTime(text string, now time.Time) (matcher, error) {
	at := strings.IndexAny(text, "<>")
	if at < 0 {
		return nil, nil
	}
	key, op := text[:at], text[at:at+1]
	value := text[at+1:]
	if v, ok := strings.CutPrefix(value, "="); ok {
		op, value = op+"=", v
	}
	var of func(*controlapi.BuildHistoryRecord) (int64, bool)
	var limit int64
	switch key {
	case "startedAt", "completedAt":
		t, err := parseMoment(value, now)
		if err != nil {
			return nil, err
		}
		of, limit = momentOf(key), t.Unix()
	case "duration":
		d, err := time.ParseDuration(value)
		if err != nil {
			return nil, fmt.Errorf("invalid duration %q", value)
		}
		of, limit = durationOf, int64(d)
	default:
		return nil, nil
	}
	return func(r *controlapi.BuildHistoryRecord) bool {
		v, ok := of(r)
		return ok && compares(v, op, limit)
	}, nil
}

func parseMoment(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, fmt.Errorf("invalid time %q: write it as in RFC 3339, or as a duration before now", text)
	}
	return t, nil
}

// momentOf has a resolution of seconds, as people write times.
func momentOf(key string) func(*controlapi.BuildHistoryRecord) (int64, bool) {
	return func(r *controlapi.BuildHistoryRecord) (int64, bool) {
		t := r.CreatedAt
		if key == "completedAt" {
			t = r.CompletedAt
		}
		return t.AsTime().Unix(), t != nil
	}
}

func durationOf(r *controlapi.BuildHistoryRecord) (int64, bool) {
	if r.CompletedAt == nil {
		return 0, false
	}
	return int64(r.CompletedAt.AsTime().Sub(r.CreatedAt.AsTime())), true
}

func compares(v int64, op string, limit int64) bool {
	switch op {
	case ">=":
		return v >= limit
	case "<=":
		return v <= limit
	case ">":
		return v > limit
	}
	return v < limit
}

func adaptor(r *controlapi.BuildHistoryRecord) filters.Adaptor {
	return filters.AdapterFunc(func(path []string) (string, bool) {
		if len(path) != 1 {
			return "", false
		}
		switch path[0] {
		case "ref":
			return r.Ref, r.Ref != ""
		case "status":
			return statusOf(r), true
		case "repository":
			return repositoryOf(r)
		}
		return "", false
	})
}

func statusOf(r *controlapi.BuildHistoryRecord) string {
	switch {
	case r.CompletedAt == nil:
		return "running"
	case r.Error == nil:
		return "completed"
	case codes.Code(r.Error.Code) == codes.Canceled || strings.Contains(r.Error.Message, "context canceled"):
		return "canceled"
	}
	return "error"
}

func repositoryOf(r *controlapi.BuildHistoryRecord) (string, bool) {
	if v, ok := r.FrontendAttrs["vcs:source"]; ok {
		return v, true
	}
	if u, err := gitutil.ParseURL(r.FrontendAttrs["context"]); err == nil {
		return u.Remote, true
	}
	return "", false
}
