package ops

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/moby/buildkit/solver/pb"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/executor"
	"github.com/slipwaybuild/slipway/solver/guard"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// AllowLeakArg is the build argument that lists, separated by commas, the ids of secrets whose values may be in what is built.
const AllowLeakArg = "SLIPWAY_ALLOW_SECRET_LEAK"

// Leaks is what one build does about secrets that are found in what it makes. A nil Leaks refuses them all. Safe for concurrent use.
type Leaks struct {
	// WarnOnly lets everything pass with a warning. It is set before the first use.
	WarnOnly bool

	mu      sync.Mutex
	allowed map[string]bool
	said    map[string]bool // short ones that were told of
}

// Allow lets values of secrets with these ids pass, in steps that are loaded from now on.
func (l *Leaks) Allow(ids ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.allowed == nil {
		l.allowed = map[string]bool{}
	}
	for _, id := range ids {
		if id != "" {
			l.allowed[id] = true
		}
	}
}

// Allows tells whether values of a secret may pass.
func (l *Leaks) Allows(id string) bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.allowed[id]
}

// passing lists what of the secrets that a step is given may be in what it makes, sorted.
func (l *Leaks) passing(op *pb.ExecOp) []string {
	if l == nil {
		return nil
	}
	u := useWalk{secrets: map[string]bool{}, ssh: map[string]bool{}}
	u.exec(op)
	var list []string
	for _, id := range slices.Sorted(maps.Keys(u.secrets)) {
		if l.WarnOnly || l.Allows(id) {
			list = append(list, id)
		}
	}
	return list
}

// Refuse makes of a leak the error that the build fails with. Where leaks are only warned about it is nil, and w is told.
func (l *Leaks) Refuse(leak *LeakError, w progress.Writer) error {
	if l == nil || !l.WarnOnly {
		return leak
	}
	w.Warn(progress.Warning{Level: 1, Short: []byte(leak.Error())})
	return nil
}

// tellShort says once in a build that a value is too short to be searched for.
func (l *Leaks) tellShort(id string, size int, w progress.Writer) {
	if l != nil {
		l.mu.Lock()
		said := l.said[id]
		if l.said == nil {
			l.said = map[string]bool{}
		}
		l.said[id] = true
		l.mu.Unlock()
		if said {
			return
		}
	}
	w.Warn(progress.Warning{Level: 1, Short: fmt.Appendf(nil,
		"secret %q has %d bytes: values under %d bytes are masked in logs and not searched for in what is built", id, size, guard.MinFind)})
}

// LeakError says that the value of a secret is in what a step made, or in what is said of the result.
type LeakError struct {
	// ID is the secret's.
	ID string
	// Where is the place, as "content of /etc/token" or "environment variable TOKEN of the image". It does not tell the value.
	Where string
	// Step is the name of the step that made it; "" if that is not known.
	Step string
}

func (e *LeakError) Error() string {
	by := ""
	if e.Step != "" {
		by = fmt.Sprintf(", made by the step %q", abbreviated(e.Step))
	}
	return fmt.Sprintf("the value of secret %q would leave the build: found in %s%s; if that is meant, allow it with --allow-secret-leak=%s or --build-arg %s=%s",
		e.ID, e.Where, by, e.ID, AllowLeakArg, e.ID)
}

// abbreviated is a step's name, or the beginning of a long one.
func abbreviated(name string) string {
	const limit = 80
	if r := []rune(name); len(r) > limit {
		return string(r[:limit-1]) + "…"
	}
	return name
}

// witnessed are the sets of values of the builds that wait for call at this moment.
func witnessed(call solver.Call) []*guard.Values {
	var sets []*guard.Values
	for _, w := range sessions(call)().Witnesses() {
		if v, ok := w.(*guard.Values); ok {
			sets = append(sets, v)
		}
	}
	return sets
}

// stepSecrets are those that one run of a step was given.
type stepSecrets struct {
	executor.Services
	values guard.Values
	// progress masks what is written through it.
	progress progress.Writer
	flush    func()
}

// secretsOf stands between a step and those it gets secrets from and writes to. Whoever made it calls flush in the end.
func secretsOf(call solver.Call, leaks *Leaks, mounts CacheMounts) *stepSecrets {
	s := &stepSecrets{}
	s.progress, s.flush = guard.MaskWriter(call.Progress(), &s.values)
	s.Services = services{sessions: sessions(call), mounts: mounts, progress: s.progress, learned: func(id string, value []byte) {
		s.values.Learn(id, value)
	}}
	s.values.Heard(func(id string, size int) {
		if size < guard.MinFind {
			leaks.tellShort(id, size, s.progress)
		}
	})
	return s
}
