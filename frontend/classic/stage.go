package classic

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"time"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/frontend"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// stage is a stage while its instructions run, and what it ended with.
type stage struct {
	b        *builder
	name     string
	args     *buildArgs
	platform *ocispecs.Platform // of its steps
	author   string
	cmdSet   bool // by this Dockerfile

	image  digest.Digest // after the last step; "" is scratch
	config *containerConfig
	base   imageConfig        // what the image began with, besides its config and history
	said   []ocispecs.History // an entry that is not empty for every layer of the file system
	state  llb.State
	fs     frontend.Reference // of state; nil for scratch

	missed     bool     // a step was not found: nothing after it is looked for
	containers []string // that docker would have to remove now
}

// env is what words of the Dockerfile are expanded with.
func (s *stage) env() shell.EnvGetter {
	return shell.EnvsFromSlice(append(s.args.beside(s.config.Env), s.config.Env...))
}

func (s *stage) expand(word string) (string, error) {
	out, _, err := s.b.shlex.ProcessWord(word, s.env())
	return out, err
}

// dispatch runs an instruction.
func (s *stage) dispatch(ctx context.Context, c instructions.Command) error {
	if ex, ok := c.(instructions.SupportsSingleWordExpansion); ok {
		if err := ex.Expand(s.expand); err != nil {
			return &Error{err: err}
		}
	}
	err := s.run(ctx, c)
	if s.b.RemoveFailed || err == nil && !s.b.KeepContainers {
		s.removeContainers()
	}
	return err
}

func (s *stage) run(ctx context.Context, c instructions.Command) error {
	switch c := c.(type) {
	case *instructions.AddCommand:
		return s.add(ctx, c)
	case *instructions.CopyCommand:
		return s.copy(ctx, c)
	case *instructions.WorkdirCommand:
		return s.workdir(ctx, c)
	case *instructions.RunCommand:
		return s.runCommand(ctx, c)
	}
	comment, err := s.change(c)
	if err != nil {
		return err
	}
	return s.note(ctx, s.config.noted(comment, true))
}

func (s *stage) tellImage() { s.b.Output.Text(" ---> " + short(s.image) + "\n") }

// createContainer tells of the container that docker would run a step in. There is none: the id is for those who read the output.
func (s *stage) createContainer() string {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails
	id := hex.EncodeToString(raw)
	s.containers = append(s.containers, id)
	s.b.Output.Text(" ---> Running in " + id[:shortID] + "\n")
	return id
}

func (s *stage) removeContainers() {
	for _, id := range s.containers {
		s.b.Output.Text("Removing intermediate container " + id[:shortID] + "\n")
	}
	s.containers = nil
}

// note makes the image of a step that leaves the file system alone.
func (s *stage) note(ctx context.Context, made *containerConfig) error {
	found, err := s.probe(ctx, made)
	if err != nil {
		return err
	}
	if found != nil {
		return s.reuse(*found, false)
	}
	id := s.createContainer()
	made.Hostname = id[:shortID]
	return s.commit(ctx, step{made: made, container: id})
}

// workdir makes the directory that later steps run in.
func (s *stage) workdir(ctx context.Context, c *instructions.WorkdirCommand) error {
	dir, err := joinWorkdir(s.config.WorkingDir, c.Path)
	if err != nil {
		return err
	}
	s.config.WorkingDir = dir
	made := s.config.noted("WORKDIR "+dir, false)
	found, err := s.probe(ctx, made)
	if err != nil {
		return err
	}
	there, err := s.tree().isDir(ctx, dir)
	if err != nil {
		return err
	}
	if there {
		return s.settle(ctx, found, step{made: made})
	}
	next := s.state.File(llb.Mkdir(dir, 0o755, llb.WithParents(true)), llb.WithCustomName("WORKDIR "+dir))
	if s.fs, _, err = s.b.perform(ctx, next, s.platform, nil); err != nil {
		return err
	}
	s.state = next
	return s.settle(ctx, found, step{made: made, changes: true})
}

// settle uses the image that was found for a step, or makes one and shows the container that docker makes it from.
func (s *stage) settle(ctx context.Context, found *foundImage, st step) error {
	if found != nil {
		return s.reuse(*found, st.changes)
	}
	st.container = s.createContainer()
	st.made.Hostname = st.container[:shortID]
	return s.commit(ctx, st)
}

// tree is the stage's file system as it is now.
func (s *stage) tree() *tree { return &tree{state: s.state, fs: s.fs} }

func now() *time.Time {
	t := time.Now().UTC()
	return &t
}

// logs passes on what a step prints.
func (s *stage) logs(ev progress.Event) {
	if ev.Log != nil {
		s.b.Output.Printed(ev.Log.Stream, ev.Log.Data)
	}
}
