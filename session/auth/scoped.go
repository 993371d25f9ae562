package auth

import (
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
)

// maxScoped bounds how many configurations for single repositories are taken, so that a directory that is none of these does not hold up
// a build.
const maxScoped = 1000

// scopedConfig is a configuration of docker's that counts for one repository or some actions only. It is where buildx keeps them: in
// HOST/config.json, HOST/REPOSITORY/config.json, or either directory with @ACTION[,ACTION] behind its name.
type scopedConfig struct {
	dir, host, repository string
	actions               []string // all of them must be asked for; none is no condition
	load                  func() (*configfile.ConfigFile, error)
}

// findScoped lists the configurations below a directory. What cannot be read is none.
func findScoped(base string) []scopedConfig {
	var found []scopedConfig
	if base == "" {
		return nil
	}
	_ = filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil // says nothing about other directories
		case len(found) == maxScoped:
			return filepath.SkipAll
		case d.IsDir() || d.Name() != config.ConfigFileName:
			return nil
		}
		dir := filepath.Dir(path)
		if name, err := filepath.Rel(base, dir); err == nil && name != "." {
			found = append(found, parseScoped(dir, filepath.ToSlash(name)))
		}
		return nil
	})
	return found
}

func parseScoped(dir, name string) scopedConfig {
	c := scopedConfig{dir: dir, load: sync.OnceValues(func() (*configfile.ConfigFile, error) { return config.Load(dir) })}
	name, actions, _ := strings.Cut(name, "@")
	for _, a := range strings.Split(actions, ",") {
		if a = strings.TrimSpace(a); a != "" {
			c.actions = append(c.actions, a)
		}
	}
	c.host, c.repository, _ = strings.Cut(name, "/")
	return c
}

func (c *scopedConfig) isOf(host string) bool { return c.host == host || isHub(c.host) && isHub(host) }

// pick returns the configuration that counts most for a host and scopes: with a repository before without, then with more actions. nil
// is none. A request about several resources is for the account of the host.
func pick(all []scopedConfig, host string, scopes []string) *scopedConfig {
	resource, actions, ok := oneResource(scopes)
	if !ok {
		return nil
	}
	var best *scopedConfig
	for i := range all {
		c := &all[i]
		if !c.isOf(host) || c.repository != "" && resource != "repository:"+c.repository {
			continue
		}
		if slices.ContainsFunc(c.actions, func(a string) bool { return !slices.Contains(actions, a) }) {
			continue
		}
		if best == nil || (c.repository != "") != (best.repository != "") && c.repository != "" ||
			(c.repository != "") == (best.repository != "") && len(c.actions) > len(best.actions) {
			best = c
		}
	}
	return best
}

// oneResource reads scopes, each one or more of type:name:action[,action] with blanks between, that are all of one resource.
func oneResource(scopes []string) (resource string, actions []string, ok bool) {
	for _, s := range strings.Fields(strings.Join(scopes, " ")) {
		i := strings.LastIndexByte(s, ':')
		if i < 0 || resource != "" && s[:i] != resource {
			return "", nil, false
		}
		resource = s[:i]
		actions = append(actions, strings.Split(s[i+1:], ",")...)
	}
	return resource, actions, resource != ""
}
