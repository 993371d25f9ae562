package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// programs are paths of what is measured. Empty is a program that does nothing.
type programs struct {
	slipway, slipwayd, buildctl, buildkitd, empty string
}

// findPrograms takes the programs from bin, or builds them into dir. It wants to be run in the repository.
func findPrograms(ctx context.Context, bin, dir string) (programs, error) {
	if bin == "" {
		bin = filepath.Join(dir, "bin")
		fmt.Fprintln(os.Stderr, "building the programs; BuildKit's take minutes the first time")
		if err := goBuild(ctx, ".", bin+"/", "./cmd/slipway", "./cmd/slipwayd"); err != nil {
			return programs{}, err
		}
		const buildkit = "github.com/moby/buildkit/cmd/"
		if err := goBuild(ctx, "hack/tools/buildkit", bin+"/", buildkit+"buildctl", buildkit+"buildkitd"); err != nil {
			return programs{}, err
		}
	}
	bin, err := filepath.Abs(bin)
	if err != nil {
		return programs{}, err
	}
	empty := filepath.Join(dir, "empty.go")
	if err := os.WriteFile(empty, []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		return programs{}, err
	}
	p := programs{
		slipway: filepath.Join(bin, "slipway"), slipwayd: filepath.Join(bin, "slipwayd"),
		buildctl: filepath.Join(bin, "buildctl"), buildkitd: filepath.Join(bin, "buildkitd"),
		empty: filepath.Join(dir, "empty"),
	}
	for _, path := range []string{p.slipway, p.slipwayd, p.buildctl, p.buildkitd} {
		if _, err := os.Stat(path); err != nil {
			return programs{}, err
		}
	}
	return p, goBuild(ctx, dir, p.empty, empty)
}

func goBuild(ctx context.Context, dir, out string, packages ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath", "-ldflags=-s -w", "-o", out}, packages...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %v: %w\n%s", packages, err, out)
	}
	return nil
}
