// Package executortest is the contract of [executor.Executor] as tests. An implementation proves itself by passing [Run].
package executortest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/slipwaybuild/slipway/solver/executor"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// Env is what a case works with. The store is closed by whoever made it, which finds holds that were not given back.
type Env struct {
	Store    *layers.Store
	Executor executor.Executor
	// Base is a root file system in which commands can run.
	Base []layers.ID
	// Args makes a command line of commands.
	Args func(...Command) []string
}

// Command is one thing a step does. Exactly one field is set.
type Command struct {
	Write *Write
	Cat   string // a path, to stdout
	Exit  int
	Wait  bool // until killed
}

// Write makes a file.
type Write struct{ Path, Data string }

// Shell makes a command line for a root file system with /bin/sh, cat and sleep.
func Shell(cmds ...Command) []string {
	var b strings.Builder
	for _, c := range cmds {
		switch {
		case c.Write != nil:
			fmt.Fprintf(&b, "printf %%s '%s' >'%s' || exit 99\n", c.Write.Data, c.Write.Path)
		case c.Cat != "":
			fmt.Fprintf(&b, "cat '%s' || exit 98\n", c.Cat)
		case c.Wait:
			b.WriteString("sleep 1000\n")
		default:
			fmt.Fprintf(&b, "exit %d\n", c.Exit)
		}
	}
	return []string{"/bin/sh", "-c", b.String()}
}

// Services is [executor.Services] from memory. Nil maps have nothing.
type Services struct {
	Secrets map[string]string
	Agents  map[string]func(net.Conn) // each call serves one connection and closes it
}

var _ executor.Services = Services{}

// Secret implements [executor.Services].
func (s Services) Secret(_ context.Context, id string) ([]byte, error) {
	if v, ok := s.Secrets[id]; ok {
		return []byte(v), nil
	}
	return nil, executor.ErrNoSecret
}

// SSH implements [executor.Services].
func (s Services) SSH(_ context.Context, id string) error {
	if s.Agents[id] == nil {
		return executor.ErrNoSSH
	}
	return nil
}

// DialSSH implements [executor.Services].
func (s Services) DialSSH(ctx context.Context, id string) (net.Conn, error) {
	if err := s.SSH(ctx, id); err != nil {
		return nil, err
	}
	here, there := net.Pipe()
	go s.Agents[id](there)
	return here, nil
}

// CacheMount implements [executor.Services].
func (Services) CacheMount(context.Context, string) (*layers.Ref, error) { return nil, nil }

// Run runs the suite. newEnv is called once per case.
func Run(t *testing.T, newEnv func(*testing.T) Env) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Env)
	}{
		{"what is written to the root is its output", writesRoot},
		{"outputs come in the order of the mounts", outputsInOrder},
		{"a bind without output forgets", bindForgets},
		{"a selector shows a part of a stack", selectorShowsPart},
		{"an exit code is an error that tells it", exitCode},
		{"valid exit codes are no failure", validExitCodes},
		{"missing layers are all named", missingLayers},
		{"no command is an invalid spec", noCommand},
		{"a required secret must be there", secretRequired},
		{"an optional secret may be missing", secretOptional},
		{"cancelling ends a step", cancelling},
		{"a cancelled context starts nothing", cancelledBefore},
		{"concurrent steps do not mix", concurrent},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, newEnv(t))
		})
	}
}

// Root is a spec that runs commands on the base, whose root is an output.
func (e Env) Root(cmds ...Command) executor.Spec {
	return executor.Spec{
		ID:     "suite",
		Args:   e.Args(cmds...),
		Cwd:    "/",
		Mounts: []executor.Mount{{Dest: "/", Type: executor.MountBind, Layers: e.Base, Output: true}},
	}
}

// Layer makes a layer in which one file lies.
func (e Env) Layer(t *testing.T, path, data string) layers.ID {
	t.Helper()
	out := e.MustRun(t, e.Root(Command{Write: &Write{"/" + path, data}}), nil)
	id := out.Outputs[0].IDs()[0]
	t.Cleanup(func() { Release(t, out) })
	return id
}

// MustRun runs a step that must not fail.
func (e Env) MustRun(t *testing.T, spec executor.Spec, svc executor.Services) *executor.Outcome {
	t.Helper()
	var stderr bytes.Buffer
	out, err := e.Executor.Run(t.Context(), spec, svc, executor.IO{Stderr: &stderr}, nil)
	if err != nil {
		t.Fatalf("run: %v\n%s", err, stderr.String())
	}
	return out
}

// Release gives back what a step left.
func Release(t *testing.T, out *executor.Outcome) {
	t.Helper()
	for _, ref := range out.Outputs {
		if err := ref.Release(); err != nil {
			t.Errorf("release output: %v", err)
		}
	}
}

// ReadLayer reads a file of a one-layer stack.
func ReadLayer(t *testing.T, s *layers.Store, ref *layers.Ref, path string) (string, error) {
	t.Helper()
	tree, err := s.LayerTree(t.Context(), ref, 0)
	if err != nil {
		t.Fatalf("open layer: %v", err)
	}
	c, err := tree.Open(t.Context(), path)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }() // only read
	b, err := io.ReadAll(io.NewSectionReader(c, 0, c.Size()))
	return string(b), err
}

// Paths lists what a one-layer stack has entries of its own for: directories end in a slash, whiteouts begin with "-".
func Paths(t *testing.T, s *layers.Store, ref *layers.Ref) []string {
	t.Helper()
	tree, err := s.LayerTree(t.Context(), ref, 0)
	if err != nil {
		t.Fatalf("open layer: %v", err)
	}
	var paths []string
	err = fstree.Walk(t.Context(), tree, "", func(e fstree.Entry) error {
		switch {
		case e.Path == "":
		case e.Whiteout:
			paths = append(paths, "-"+e.Path)
		case e.IsDir():
			paths = append(paths, e.Path+"/")
		default:
			paths = append(paths, e.Path)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("walk layer: %v", err)
	}
	return paths
}

func wantFile(t *testing.T, e Env, ref *layers.Ref, path, want string) {
	t.Helper()
	got, err := ReadLayer(t, e.Store, ref, path)
	if err != nil || got != want {
		t.Errorf("%s holds %q (%v), want %q", path, got, err, want)
	}
}

func writesRoot(t *testing.T, e Env) {
	out := e.MustRun(t, e.Root(Command{Write: &Write{"/a", "one"}}, Command{Write: &Write{"/b", "two"}}), nil)
	defer Release(t, out)
	if len(out.Outputs) != 1 {
		t.Fatalf("%d outputs, want 1", len(out.Outputs))
	}
	wantFile(t, e, out.Outputs[0], "a", "one")
	wantFile(t, e, out.Outputs[0], "b", "two")
	// An executor may leave what it needed to mount the world there.
	runtime := []string{"dev/", "proc/", "sys/"}
	got := slices.DeleteFunc(Paths(t, e.Store, out.Outputs[0]), func(p string) bool { return slices.Contains(runtime, p) })
	if len(got) != 2 {
		t.Errorf("layer holds %q, want a and b", got)
	}
}

func outputsInOrder(t *testing.T, e Env) {
	spec := e.Root(Command{Write: &Write{"/m/x", "in m"}}, Command{Write: &Write{"/r", "in root"}})
	spec.Mounts = []executor.Mount{{Dest: "/m", Type: executor.MountBind, Output: true}, spec.Mounts[0]}
	out := e.MustRun(t, spec, nil)
	defer Release(t, out)
	if len(out.Outputs) != 2 {
		t.Fatalf("%d outputs, want 2", len(out.Outputs))
	}
	wantFile(t, e, out.Outputs[0], "x", "in m")
	wantFile(t, e, out.Outputs[1], "r", "in root")
}

func bindForgets(t *testing.T, e Env) {
	src := e.Layer(t, "f", "old")
	spec := e.Root(Command{Write: &Write{"/m/f", "new"}}, Command{Cat: "/m/f"})
	spec.Mounts = append(spec.Mounts, executor.Mount{Dest: "/m", Type: executor.MountBind, Layers: []layers.ID{src}})
	for range 2 {
		var stdout bytes.Buffer
		out, err := e.Executor.Run(t.Context(), spec, nil, executor.IO{Stdout: &stdout}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if stdout.String() != "new" {
			t.Errorf("step read %q, want its own", stdout.String())
		}
		Release(t, out)
		spec = e.Root(Command{Cat: "/m/f"})
		spec.Mounts = append(spec.Mounts, executor.Mount{Dest: "/m", Type: executor.MountBind, ReadOnly: true, Layers: []layers.ID{src}})
		stdout.Reset()
		out, err = e.Executor.Run(t.Context(), spec, nil, executor.IO{Stdout: &stdout}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if stdout.String() != "old" {
			t.Errorf("next step read %q, want what the layer holds", stdout.String())
		}
		Release(t, out)
		spec = e.Root(Command{Write: &Write{"/m/f", "new"}}, Command{Cat: "/m/f"})
		spec.Mounts = append(spec.Mounts, executor.Mount{Dest: "/m", Type: executor.MountBind, Layers: []layers.ID{src}})
	}
}

func selectorShowsPart(t *testing.T, e Env) {
	src := e.Layer(t, "f", "content")
	spec := e.Root(Command{Cat: "/g"})
	spec.Mounts = append(spec.Mounts, executor.Mount{Dest: "/g", Type: executor.MountBind, ReadOnly: true, Layers: []layers.ID{src}, Selector: "f"})
	var stdout bytes.Buffer
	out, err := e.Executor.Run(t.Context(), spec, nil, executor.IO{Stdout: &stdout}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer Release(t, out)
	if stdout.String() != "content" {
		t.Errorf("read %q", stdout.String())
	}
}

func exitCode(t *testing.T, e Env) {
	_, err := e.Executor.Run(t.Context(), e.Root(Command{Exit: 7}), nil, executor.IO{}, nil)
	var exit *executor.ExitError
	if !errors.As(err, &exit) || exit.Code != 7 {
		t.Errorf("error %v, want exit code 7", err)
	}
}

func validExitCodes(t *testing.T, e Env) {
	spec := e.Root(Command{Exit: 7})
	spec.ValidExitCodes = []int{3, 7}
	Release(t, e.MustRun(t, spec, nil))
}

func missingLayers(t *testing.T, e Env) {
	spec := e.Root(Command{Exit: 0})
	gone := []layers.ID{"dir:gone", "dir:lost"}
	spec.Mounts[0].Layers = append([]layers.ID{}, append(e.Base, gone[0])...)
	spec.Mounts = append(spec.Mounts, executor.Mount{Dest: "/m", Type: executor.MountBind, Layers: gone[1:]})
	_, err := e.Executor.Run(t.Context(), spec, nil, executor.IO{}, nil)
	var missing *executor.MissingInputError
	if !errors.As(err, &missing) || fmt.Sprint(missing.IDs) != fmt.Sprint(gone) {
		t.Errorf("error %v, want %v to be missing", err, gone)
	}
}

func noCommand(t *testing.T, e Env) {
	spec := e.Root(Command{Exit: 0})
	spec.Args = nil
	_, err := e.Executor.Run(t.Context(), spec, nil, executor.IO{}, nil)
	var invalid *executor.InvalidSpecError
	if !errors.As(err, &invalid) {
		t.Errorf("error %v, want an invalid spec", err)
	}
}

func secretRequired(t *testing.T, e Env) {
	for _, svc := range []executor.Services{nil, Services{}} {
		spec := e.Root(Command{Exit: 0})
		spec.Mounts = append(spec.Mounts, executor.Mount{Dest: "/s", Type: executor.MountSecret, ID: "token"})
		_, err := e.Executor.Run(t.Context(), spec, svc, executor.IO{}, nil)
		if !errors.Is(err, executor.ErrNoSecret) || err.Error() != "secret token: not found" {
			t.Errorf("error %v, want: secret token: not found", err)
		}
	}
}

func secretOptional(t *testing.T, e Env) {
	spec := e.Root(Command{Exit: 0})
	spec.Mounts = append(spec.Mounts, executor.Mount{Dest: "/s", Type: executor.MountSecret, ID: "token", Optional: true})
	Release(t, e.MustRun(t, spec, Services{}))
}

func cancelling(t *testing.T, e Env) {
	reason := errors.New("nobody waits any more")
	ctx, cancel := context.WithCancelCause(t.Context())
	var started atomic.Int32
	_, err := e.Executor.Run(ctx, e.Root(Command{Wait: true}), nil, executor.IO{Started: func() {
		started.Add(1)
		cancel(reason)
	}}, nil)
	if !errors.Is(err, reason) {
		t.Errorf("error %v, want the cause", err)
	}
	if started.Load() != 1 {
		t.Errorf("Started was called %d times, want once", started.Load())
	}
}

func cancelledBefore(t *testing.T, e Env) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := e.Executor.Run(ctx, e.Root(Command{Wait: true}), nil, executor.IO{Started: func() { t.Error("it was started") }}, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want canceled", err)
	}
}

func concurrent(t *testing.T, e Env) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			want := fmt.Sprint("step ", i)
			var stdout bytes.Buffer
			spec := e.Root(Command{Write: &Write{"/f", want}}, Command{Cat: "/f"})
			out, err := e.Executor.Run(t.Context(), spec, nil, executor.IO{Stdout: &stdout}, nil)
			if err != nil {
				t.Errorf("run %d: %v", i, err)
				return
			}
			defer Release(t, out)
			if stdout.String() != want {
				t.Errorf("step %d read %q", i, stdout.String())
			}
			wantFile(t, e, out.Outputs[0], "f", want)
		})
	}
	wg.Wait()
}
