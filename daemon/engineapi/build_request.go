package engineapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/slipwaybuild/slipway/daemon"
	"github.com/slipwaybuild/slipway/exporter/image"
	"github.com/slipwaybuild/slipway/frontend/dockerfile"
	"github.com/slipwaybuild/slipway/session"
)

// What workers say of their network, in labels.
const (
	labelNetwork     = "org.mobyproject.buildkit.worker.network"
	labelHostGateway = "org.mobyproject.buildkit.worker.moby.host-gateway-ip"
)

// request maps the parameters to a build. context is the URL of the build's context, or "" for the session's directories.
func (p *buildParams) request(worker daemon.Worker, context string) (daemon.Request, error) {
	r := daemon.Request{Ref: session.NewID(), Frontend: dockerfile.Name, FrontendAttrs: map[string]string{}, Outputs: p.outputList()}
	a := r.FrontendAttrs
	maps.Copy(a, p.limits)
	setIf := func(key, value string) {
		if value != "" {
			a[key] = value
		}
	}
	setIf("context", context)
	setIf("target", p.target)
	setIf("platform", p.platform)
	if p.dockerfile != "." {
		setIf("filename", p.dockerfile)
	}
	if p.noCache {
		a["no-cache"] = "" // of all stages
	}
	a["image-resolve-mode"] = "local"
	if p.pull {
		a["image-resolve-mode"] = "pull"
	}
	for k, v := range p.args {
		if v != nil { // one without a value is only mentioned
			a["build-arg:"+k] = *v
		}
	}
	for k, v := range p.labels {
		a["label:"+k] = v
	}
	setIf("ulimit", p.ulimitList())
	if err := p.setNetwork(&r); err != nil {
		return r, err
	}
	hosts, err := hostList(p.hosts, worker)
	if err != nil {
		return r, err
	}
	setIf("add-hosts", hosts)
	imports, err := p.cacheImports()
	setIf("cache-imports", imports)
	return r, err
}

// outputList are the outputs asked for, or the local image store. Names go to every output that is an image and has none.
func (p *buildParams) outputList() []daemon.Output {
	list := p.outputs
	if len(list) == 0 {
		list = []daemon.Output{{Type: image.TypeMoby}}
	}
	out := make([]daemon.Output, len(list))
	for i, o := range list {
		o.Attrs = maps.Clone(o.Attrs)
		if o.Attrs == nil {
			o.Attrs = map[string]string{}
		}
		if isImage(o.Type) && o.Attrs["name"] == "" && len(p.tags) > 0 {
			o.Attrs["name"] = p.tags.names()
		}
		out[i] = o
	}
	return out
}

// isImage tells whether an output ends in the image store.
func isImage(output string) bool { return output == image.TypeMoby || output == image.Type }

// storesImage tells whether the build ends in the image store at all.
func (p *buildParams) storesImage() bool {
	return len(p.outputs) == 0 || slices.ContainsFunc(p.outputs, func(o daemon.Output) bool { return isImage(o.Type) })
}

func (p *buildParams) setNetwork(r *daemon.Request) error {
	switch p.network {
	case "", "default":
	case "none":
		r.FrontendAttrs["force-network-mode"] = "none"
	case "host":
		r.FrontendAttrs["force-network-mode"] = "host"
		// Docker has no way to grant it; whether it is given is the daemon's configuration.
		r.Entitlements = append(r.Entitlements, "network.host")
	default:
		return invalid("network mode %q not supported by buildkit", p.network)
	}
	return nil
}

// ulimitList writes limits as the frontend reads them. Names were checked.
func (p *buildParams) ulimitList() string {
	var list []string
	for _, u := range p.ulimits {
		list = append(list, fmt.Sprintf("%s=%d:%d", u.Name, u.Soft, u.Hard))
	}
	return strings.Join(list, ",")
}

// hostList turns "name:address" into the frontend's "name=address". The address "host-gateway" is this host's, seen from a step.
func hostList(hosts []string, worker daemon.Worker) (string, error) {
	var list []string
	for _, h := range hosts {
		name, address, ok := strings.Cut(h, ":")
		if !ok || name == "" || strings.ContainsAny(name, "=,\" \t\n") {
			return "", invalid("invalid host %s", h)
		}
		if address == "host-gateway" {
			if address = hostGateway(worker); address == "" {
				return "", invalid("host %s: steps have no way to this host that has an address", h)
			}
		}
		ip := net.ParseIP(strings.Trim(address, "[]"))
		if ip == nil {
			return "", invalid("invalid host %s", h)
		}
		list = append(list, name+"="+ip.String())
	}
	return strings.Join(list, ","), nil
}

// hostGateway is where a step finds this host; "" if nowhere.
func hostGateway(worker daemon.Worker) string {
	if ip := worker.Labels[labelHostGateway]; ip != "" {
		return ip
	}
	if worker.Labels[labelNetwork] == "host" {
		return "127.0.0.1"
	}
	return ""
}

// cacheImports names the images to take cache from, as new clients do.
func (p *buildParams) cacheImports() (string, error) {
	var list []*controlapi.CacheOptionsEntry
	for _, ref := range p.cacheFrom {
		if ref != "" {
			list = append(list, &controlapi.CacheOptionsEntry{Type: "registry", Attrs: map[string]string{"ref": ref}})
		}
	}
	if len(list) == 0 {
		return "", nil
	}
	b, err := json.Marshal(list)
	return string(b), err
}
