package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"
)

// request is a build in words that both clients can be told.
type request struct {
	context    string
	dockerfile string // within the context; empty is Dockerfile
	args       []string
	output     string // empty is nothing
	llb        []byte // instead of all the above but the output
}

func (q request) slipway(addr string) []string {
	args := []string{"--addr", addr, "build", "--progress", "plain"}
	if q.dockerfile != "" {
		args = append(args, "-f", filepath.Join(q.context, q.dockerfile))
	}
	for _, a := range q.args {
		args = append(args, "--build-arg", a)
	}
	output := q.output
	if output == "" {
		output = "type=cacheonly"
	}
	return append(args, "-o", output, q.context)
}

func (q request) buildctl(addr string) []string {
	args := []string{"--addr", addr, "build", "--progress", "plain"}
	if q.llb == nil {
		args = append(args, "--frontend", "dockerfile.v0", "--local", "context="+q.context, "--local", "dockerfile="+q.context)
		if q.dockerfile != "" {
			args = append(args, "--opt", "filename="+q.dockerfile)
		}
		for _, a := range q.args {
			args = append(args, "--opt", "build-arg:"+a)
		}
	}
	if q.output != "" {
		args = append(args, "--output", q.output)
	}
	return args
}

// longest is how long a program may take: one that hangs ends the run.
const longest = 15 * time.Minute

// spent is what a client took.
type spent struct {
	wall, cpu time.Duration
}

// execute runs a program to its end.
func execute(ctx context.Context, stdin []byte, program string, args ...string) (spent, error) {
	return executeIn(ctx, "", stdin, program, args...)
}

// executeIn is execute in a working directory.
func executeIn(ctx context.Context, dir string, stdin []byte, program string, args ...string) (spent, error) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	if stdin != nil {
		cmd.Stdin = bytes.NewReader(stdin)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	began := time.Now()
	err := cmd.Run()
	s := spent{wall: time.Since(began)}
	if cmd.ProcessState != nil {
		s.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	if err != nil {
		text := out.Bytes()
		return s, fmt.Errorf("%s %q: %w\n%s", filepath.Base(program), args, err, text[max(0, len(text)-4<<10):])
	}
	return s, nil
}
