package engineapi

import "net/http"

// emptyRoutes answer about what a build engine has none of: clients list it beside what it has, and look a name up everywhere, also
// one of an image, with slashes.
func emptyRoutes() []route {
	none := []string{}
	return []route{
		{http.MethodGet, "/containers/json", always(none)},
		{http.MethodPost, "/containers/prune", always(map[string]any{"ContainersDeleted": nil, "SpaceReclaimed": 0})},
		{http.MethodGet, "/containers/{name...}/json", missing("No such container: %s")},
		{http.MethodGet, "/volumes", always(map[string]any{"Volumes": none, "Warnings": nil})},
		{http.MethodPost, "/volumes/prune", always(map[string]any{"VolumesDeleted": nil, "SpaceReclaimed": 0})},
		{http.MethodGet, "/volumes/{name...}", missing("get %s: no such volume")},
		{http.MethodGet, "/networks", always(none)},
		{http.MethodPost, "/networks/prune", always(map[string]any{"NetworksDeleted": nil})},
		{http.MethodGet, "/networks/{name...}", missing("network %s not found")},
		{http.MethodGet, "/plugins", always(none)},
		{http.MethodGet, "/plugins/{name...}/json", missing("plugin %q not found")},
	}
}

func missing(format string) handler {
	return func(_ http.ResponseWriter, r *http.Request) error { return notFound(format, r.PathValue("name")) }
}

// unservedRoutes refuse the rest of what dockerd does and a build engine does not.
func unservedRoutes() []route {
	var routes []route
	for _, group := range []struct{ path, sentence string }{
		{"/containers", "this is a build engine: it runs no containers"},
		{"/exec", "this is a build engine: it runs no containers"},
		{"/commit", "this is a build engine: it runs no containers"},
		{"/volumes", "this is a build engine: it keeps no volumes"},
		{"/networks", "this is a build engine: it manages no networks"},
		{"/swarm", "this is a build engine: it is no part of a swarm"},
		{"/nodes", "this is a build engine: it is no part of a swarm"},
		{"/services", "this is a build engine: it is no part of a swarm"},
		{"/tasks", "this is a build engine: it is no part of a swarm"},
		{"/secrets", "this is a build engine: secrets come with a build's session"},
		{"/configs", "this is a build engine: it is no part of a swarm"},
		{"/plugins", "this is a build engine: it takes no plugins"},
	} {
		refuse := func(http.ResponseWriter, *http.Request) error { return unserved("%s", group.sentence) }
		routes = append(routes, route{"", group.path, refuse}, route{"", group.path + "/{rest...}", refuse})
	}
	return routes
}
