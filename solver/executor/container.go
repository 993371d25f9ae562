package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
)

// ContainerSpec is what the processes of a container share, as plain data. The fields are those of [Spec].
type ContainerSpec struct {
	// ID names the container in logs.
	ID         string
	Hostname   string
	Mounts     []Mount
	Network    Network
	ExtraHosts []HostIP
	Platform   string
}

// ProcessSpec is one process of a container. The fields are those of [Spec].
type ProcessSpec struct {
	Args, Env  []string
	Cwd, User  string
	SecretEnvs []SecretEnv
	// Security counts for the first process; later ones are confined as that one is, and may not ask for more.
	Security Security
	// RemoveMountStubs counts for the first process.
	RemoveMountStubs bool
}

// Errors of containers.
var (
	ErrReleased = errors.New("the container was released")
	ErrEnded    = errors.New("the container has ended with its first process")
)

// Container is a file system made of mounts in which processes are started one after the other, for people and programs that
// look around. The first process makes the container, the others join it, and all end with the first. What they write is
// forgotten, except in caches. A container takes no execution slot: those who use one may wait for steps. All methods are safe
// for concurrent use.
type Container struct {
	s     *step
	order []*mount        // as in the spec
	life  context.Context // until it is released
	end   context.CancelCauseFunc

	starting sync.Mutex // one process is started at a time; guards what follows
	first    *Process
	named    int // how many processes were described

	mu       sync.Mutex // guards what follows
	released bool
	users    sync.WaitGroup // of what is mounted
	gone     chan struct{}  // closed when the release is done
	err      error          // of the release
}

// NewContainer composes the mounts. Nothing runs yet. svc is asked as long as the container is there. The caller releases it.
// Errors are those of [Runc.Run].
func (r *Runc) NewContainer(ctx context.Context, spec ContainerSpec, svc Services) (_ *Container, err error) {
	s, err := r.newStep(ctx, Spec{
		ID: spec.ID, Args: []string{probeProgram}, Hostname: spec.Hostname, Mounts: spec.Mounts, Network: spec.Network,
		ExtraHosts: spec.ExtraHosts, Platform: spec.Platform,
	}, svc, IO{})
	if err != nil {
		return nil, err
	}
	s.open = true
	s.foreign() // whoever looks around sees for himself what does not run
	c := &Container{s: s, order: s.asWritten(), gone: make(chan struct{})}
	// What serves the container, such as ssh agents, lives as long as it does, and not as long as the call that made it.
	c.life, c.end = context.WithCancelCause(context.WithoutCancel(ctx))
	defer context.AfterFunc(ctx, func() { c.end(context.Cause(ctx)) })()
	if err := s.furnish(c.life); err != nil {
		return nil, errors.Join(err, c.Release())
	}
	return c, nil
}

// furnish takes, in the order that the package comment gives, whatever the mounts show.
func (s *step) furnish(ctx context.Context) (err error) {
	if s.values, err = askSecrets(ctx, s.svc, s.mounts, nil); err != nil {
		return err
	}
	if err := checkSSH(ctx, s.svc, s.mounts); err != nil {
		return err
	}
	if err := pin(ctx, s.r.o.Store, s.mounts); err != nil {
		return err
	}
	if err := openVolumes(ctx, s.r.o.Store, s.svc, s.mounts); err != nil {
		return err
	}
	return s.compose(ctx)
}

// asWritten lists the mounts in the order of the spec, in which the root need not be first.
func (s *step) asWritten() []*mount {
	root := slices.IndexFunc(s.spec.Mounts, func(m Mount) bool { return m.Dest == "/" })
	return slices.Insert(slices.Clone(s.mounts[1:]), root, s.mounts[0])
}

// enter keeps what is mounted until leave is called.
func (c *Container) enter() (leave func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.released {
		return nil, ErrReleased
	}
	c.users.Add(1)
	return c.users.Done, nil
}

// Start starts a process and returns once it runs. Cancelling ctx gives up starting it, and means nothing to it after that. The
// process ends by itself, when the first one does, by [Process.Kill] or with the container. Writers of o must take what they
// are given or fail: the process does not end before they did. o's Stdin is closed when it has ended.
func (c *Container) Start(ctx context.Context, spec ProcessSpec, o IO) (*Process, error) {
	leave, err := c.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	secret, err := askSecrets(ctx, c.s.svc, nil, spec.SecretEnvs)
	if err != nil {
		return nil, err
	}
	c.starting.Lock()
	defer c.starting.Unlock()
	if c.first == nil {
		p, err := c.startFirst(ctx, spec, secret, o)
		if err == nil {
			c.first = p
		}
		return p, err
	}
	if c.first.ended() {
		return nil, ErrEnded
	}
	return c.join(ctx, spec, secret, o)
}

// startFirst makes the container.
func (c *Container) startFirst(ctx context.Context, spec ProcessSpec, secret *secrets, o IO) (*Process, error) {
	s := c.s
	step, err := checked(Spec{
		ID: s.spec.ID, Args: spec.Args, Env: spec.Env, Cwd: spec.Cwd, User: spec.User, Hostname: s.spec.Hostname, Mounts: s.spec.Mounts,
		Network: s.spec.Network, Security: spec.Security, ExtraHosts: s.spec.ExtraHosts, RemoveMountStubs: spec.RemoveMountStubs,
		Platform: s.spec.Platform,
	})
	if err != nil {
		return nil, err
	}
	s.spec, s.values.env, s.io = step, secret.env, o
	described, err := s.describe()
	if err != nil {
		return nil, err
	}
	disconnect, err := s.connect(ctx, described)
	if err != nil {
		return nil, err
	}
	disconnect = sync.OnceFunc(disconnect)
	if err := s.writeBundle(ctx, described); err != nil {
		disconnect()
		return nil, err
	}
	run := &process{rt: s.rt, id: s.id, bundle: s.bundle, args: spec.Args, log: s.r.log}
	p, err := c.launch(ctx, run, o, func(ctx context.Context) {
		s.remove(ctx, described.cgroup, true)
		disconnect()
	})
	if err != nil {
		disconnect() // nothing was launched, or all is gone
	}
	return p, err
}

// join starts a further process.
func (c *Container) join(ctx context.Context, spec ProcessSpec, secret *secrets, o IO) (*Process, error) {
	described, err := c.describe(ctx, spec, secret, o.Tty)
	if err != nil {
		return nil, err
	}
	c.named++
	name := filepath.Join(c.s.bundle, "process-"+strconv.Itoa(c.named))
	if err := writeJSON(name, described); err != nil {
		return nil, fmt.Errorf("describe process: %w", err)
	}
	run := &process{rt: c.s.rt, id: c.s.id, bundle: c.s.bundle, args: spec.Args, log: c.s.r.log, joins: name}
	return c.launch(ctx, run, o, func(context.Context) {
		for _, file := range []string{name, run.pidFile(), run.logFile()} {
			_ = os.Remove(file) // it goes with the container otherwise
		}
	})
}

// launch runs a process until it ends and then clears up after it. It returns once the process runs, or why it does not.
func (c *Container) launch(ctx context.Context, run *process, o IO, clear func(context.Context)) (*Process, error) {
	leave, err := c.enter()
	if err != nil {
		return nil, err
	}
	p := &Process{args: run.args, resize: make(chan Size), signal: make(chan int), done: make(chan struct{})}
	life, kill := context.WithCancelCause(c.life)
	p.kill = kill
	started := make(chan struct{})
	run.io = o
	run.io.Resize, run.io.Signal = p.resize, p.signal
	run.io.Started = func() {
		close(started)
		if o.Started != nil {
			o.Started()
		}
	}
	go func() {
		defer leave()
		defer close(p.done)
		defer kill(nil)
		p.code, p.err = run.run(life)
		after, cancel := context.WithTimeout(context.WithoutCancel(life), killGrace)
		defer cancel()
		clear(after)
	}()
	select {
	case <-started:
	case <-ctx.Done():
		kill(context.Cause(ctx))
		<-p.done
		return nil, context.Cause(ctx)
	case <-p.done:
		select {
		case <-started: // and has ended
		default:
			if p.err != nil {
				return nil, p.err
			}
		}
	}
	return p, nil
}

// Release ends every process and gives back what the container holds. It returns when nothing of it is left. A second call
// waits for the first.
func (c *Container) Release() error {
	c.mu.Lock()
	again := c.released
	c.released = true
	c.mu.Unlock()
	if again {
		<-c.gone
		return c.err
	}
	defer close(c.gone)
	c.end(ErrReleased)
	c.users.Wait()
	c.err = c.s.release()
	return c.err
}
