package engineapi

import (
	"net/http"
	"regexp"
	"strings"
)

// handler answers one request. An error returned before anything was written becomes the answer, with the status of its class;
// see [statusOf]. One returned later can only be logged, so whoever streams reports errors in the stream.
type handler func(w http.ResponseWriter, r *http.Request) error

// route is one thing that is served. In path, "{name}" stands for one element and "{name...}" for one or more, as names of images
// have; handlers read them with [http.Request.PathValue].
type route struct {
	method, path string
	serve        handler
}

// compiled is a route that can be matched.
type compiled struct {
	route
	pattern *regexp.Regexp
	names   []string
}

var variable = regexp.MustCompile(`\{([a-z]+)(\.\.\.)?\}`)

func compile(r route) compiled {
	c := compiled{route: r}
	var b strings.Builder
	b.WriteString("^")
	rest := r.path
	for {
		m := variable.FindStringSubmatchIndex(rest)
		if m == nil {
			break
		}
		b.WriteString(regexp.QuoteMeta(rest[:m[0]]))
		if m[4] >= 0 {
			b.WriteString("(.+)")
		} else {
			b.WriteString("([^/]+)")
		}
		c.names = append(c.names, rest[m[2]:m[3]])
		rest = rest[m[1]:]
	}
	b.WriteString(regexp.QuoteMeta(rest) + "$")
	c.pattern = regexp.MustCompile(b.String())
	return c
}

// router finds the first route that a request matches.
type router []compiled

func newRouter(routes []route) router {
	out := make(router, len(routes))
	for i, r := range routes {
		out[i] = compile(r)
	}
	return out
}

// find sets the request's path values. A path that is served for other methods only is as unknown as any other: docker's daemon
// never answers 405, and clients take that for another kind of server.
func (rt router) find(r *http.Request, path string) handler {
	for _, c := range rt {
		if c.method != r.Method && c.method != "" {
			continue
		}
		m := c.pattern.FindStringSubmatch(path)
		if m == nil {
			continue
		}
		for i, name := range c.names {
			r.SetPathValue(name, m[i+1])
		}
		return c.serve
	}
	return func(http.ResponseWriter, *http.Request) error { return notFound("page not found") }
}
