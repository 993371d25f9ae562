package request

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/docker/go-units"
)

// dockerParams are the parameters of POST /build that carry an attribute of the frontend as it is.
var dockerParams = map[string]string{
	"target": "target", "cgroup-parent": "cgroupparent", "shm-size": "shmsize", "force-network-mode": "networkmode",
	"memory": "memory", "memswap": "memswap", "cpushares": "cpushares", "cpuperiod": "cpuperiod", "cpuquota": "cpuquota",
	"cpusetcpus": "cpusetcpus", "cpusetmems": "cpusetmems",
}

// dockerQuery turns attributes of the frontend into parameters.
func dockerQuery(attrs map[string]string) (url.Values, error) {
	q := url.Values{}
	args, labels := map[string]string{}, map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(attrs)) {
		value := attrs[key]
		if param := dockerParams[key]; param != "" {
			q.Set(param, value)
			continue
		}
		if name, ok := strings.CutPrefix(key, "build-arg:"); ok {
			args[name] = value
			continue
		}
		if name, ok := strings.CutPrefix(key, "label:"); ok {
			labels[name] = value
			continue
		}
		if err := setDockerParam(q, key, value); err != nil {
			return nil, err
		}
	}
	for param, values := range map[string]map[string]string{"buildargs": args, "labels": labels} {
		if err := setJSON(q, param, values); err != nil {
			return nil, err
		}
	}
	return q, nil
}

// setDockerParam sets the parameter of an attribute that is written otherwise there.
func setDockerParam(q url.Values, key, value string) error {
	switch key {
	case "image-resolve-mode":
		if value == "pull" {
			q.Set("pull", "1")
		}
	case "no-cache":
		q.Set("nocache", "1") // stages were refused with their flag
	case "platform":
		if strings.Contains(value, ",") {
			return unknownToDocker("--platform with several platforms")
		}
		if value != "local" { // the daemon's own
			q.Set("platform", value)
		}
	case "add-hosts":
		for h := range strings.SplitSeq(value, ",") {
			q.Add("extrahosts", strings.Replace(h, "=", ":", 1))
		}
	case "ulimit":
		var list []*units.Ulimit
		for u := range strings.SplitSeq(value, ",") {
			limit, err := units.ParseUlimit(u)
			if err != nil {
				return fmt.Errorf("--ulimit %s: %w", u, err)
			}
			list = append(list, limit)
		}
		return setJSON(q, "ulimits", list)
	case "requestid", "frontend.caps":
		return unknownToDocker("--call or --check")
	default:
		if kind, ok := strings.CutPrefix(key, "attest:"); ok {
			return unknownToDocker("--attest type=" + kind)
		}
		return unknownToDocker("the build option " + key)
	}
	return nil
}

func setJSON(q url.Values, param string, value any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode %s: %w", param, err)
	}
	q.Set(param, string(b))
	return nil
}
