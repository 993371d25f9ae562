package classic

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// predefined are the arguments that need no ARG. They reach commands and leave no trace in images or the cache.
var predefined = []string{
	"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "FTP_PROXY", "ftp_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy",
}

// buildArgs are the arguments of a build as one stage sees them. Those of the client override what the Dockerfile says.
type buildArgs struct {
	given      map[string]string
	mentioned  []string           // by the client, with a value or without
	global     map[string]*string // declared before the first FROM
	declared   map[string]*string // in this stage
	referenced map[string]bool    // anywhere
}

func newBuildArgs(given map[string]string, mentioned []string) *buildArgs {
	all := slices.Concat(slices.Collect(maps.Keys(given)), mentioned)
	slices.Sort(all)
	return &buildArgs{
		given: given, mentioned: slices.Compact(all),
		global: map[string]*string{}, declared: map[string]*string{}, referenced: map[string]bool{},
	}
}

// stage returns the arguments of a stage that begins: it knows the global ones only as defaults of its own.
func (a *buildArgs) stage() *buildArgs {
	s := *a
	s.declared = map[string]*string{}
	return &s
}

func (a *buildArgs) declare(key string, value *string) {
	a.declared[key] = value
	a.referenced[key] = true
}

func (a *buildArgs) declareGlobal(key string, value *string) {
	a.declare(key, value)
	a.global[key] = value
}

// value is what an argument of a scope stands for.
func (a *buildArgs) value(key string, scope map[string]*string) (string, bool) {
	if v, ok := a.given[key]; ok {
		return v, true
	}
	if v := scope[key]; v != nil {
		return *v, true
	}
	if v := a.global[key]; v != nil {
		return *v, true
	}
	return "", false
}

// list writes the arguments of a scope, sorted; predefined ones that the client gave belong to every scope.
func (a *buildArgs) list(scope map[string]*string) []string {
	keys := slices.Collect(maps.Keys(scope))
	for _, k := range predefined {
		if _, ok := a.given[k]; ok {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	var out []string
	for _, k := range slices.Compact(keys) {
		if v, ok := a.value(k, scope); ok {
			out = append(out, k+"="+v)
		}
	}
	return out
}

// beside lists the arguments that commands get beside an environment, which wins.
func (a *buildArgs) beside(env []string) []string {
	return slices.DeleteFunc(a.list(a.declared), func(arg string) bool {
		key, _, _ := strings.Cut(arg, "=")
		return slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, key+"=") })
	})
}

// traceless tells whether an argument is a predefined one that the stage does not declare.
func (a *buildArgs) traceless(key string) bool {
	_, declared := a.declared[key]
	return !declared && slices.Contains(predefined, key)
}

// unused are the client's arguments that no ARG declares.
func (a *buildArgs) unused() (list []string) {
	for _, k := range a.mentioned {
		if !a.referenced[k] && !slices.Contains(predefined, k) {
			list = append(list, k)
		}
	}
	return list
}

// commandWith marks a command with the arguments it ran with. No command begins with a bar, so none is taken for another.
func (a *buildArgs) commandWith(args, command []string) []string {
	if len(args) == 0 {
		return command
	}
	args = slices.DeleteFunc(slices.Clone(args), func(arg string) bool {
		key, _, _ := strings.Cut(arg, "=")
		return a.traceless(key)
	})
	return slices.Concat([]string{fmt.Sprintf("|%d", len(args))}, args, command)
}
