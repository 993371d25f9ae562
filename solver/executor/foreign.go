package executor

import (
	"errors"

	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Platforms says what programs this host runs. It may change while the daemon runs, as emulators are installed.
type Platforms interface {
	// Runs says whether programs for p run as they are.
	Runs(p ocispecs.Platform) bool
	// Emulator returns a program that runs those for p, given their command line.
	Emulator(p ocispecs.Platform) (path string, ok bool)
	// Missing says in a sentence that programs for p do not run, and how they would.
	Missing(p ocispecs.Platform) string
}

// PlatformError says that a step failed on a host that runs no programs for the step's platform. That they fail is most likely
// its reason: a step of such a platform that starts only the host's own programs does well.
type PlatformError struct {
	Platform string
	// Missing is a sentence about what the host lacks.
	Missing string
	Err     error
}

func (e *PlatformError) Error() string { return e.Err.Error() + ": " + e.Missing }

// Unwrap returns what failed.
func (e *PlatformError) Unwrap() error { return e.Err }

// emulatorPath is where a step finds an emulator that the kernel does not know: where BuildKit's steps do.
const emulatorPath = "/dev/.buildkit_qemu_emulator"

// foreign looks at the platform of a step. It returns the platform if nothing here runs its programs, and sets the step's emulator
// if one has to be run by hand.
func (s *step) foreign() *ocispecs.Platform {
	if s.r.o.Platforms == nil || s.spec.Platform == "" {
		return nil
	}
	p, err := platforms.Parse(s.spec.Platform) // checked before
	if err != nil || platforms.Only(platforms.DefaultSpec()).Match(p) || s.r.o.Platforms.Runs(p) {
		return nil
	}
	if path, ok := s.r.o.Platforms.Emulator(p); ok {
		s.emulator = path
		return nil
	}
	return &p
}

// emulated puts the emulator in front of the command.
func (s *step) emulated(c *container) {
	if s.emulator == "" {
		return
	}
	spec := *c.spec
	spec.Args = append([]string{emulatorPath}, spec.Args...)
	c.spec = &spec
	c.mounts = append(c.mounts, specs.Mount{
		Destination: emulatorPath, Type: "bind", Source: s.emulator, Options: []string{"rbind", "rprivate", "ro", "nosuid", "nodev"},
	})
}

// blame tells whoever reads of a failure that the step's platform is the likely reason.
func (r *Runc) blame(err error, p *ocispecs.Platform) error {
	var exit *ExitError
	var start *StartError
	if p == nil || !errors.As(err, &exit) && !errors.As(err, &start) {
		return err
	}
	return &PlatformError{Platform: platforms.FormatAll(*p), Missing: r.o.Platforms.Missing(*p), Err: err}
}
