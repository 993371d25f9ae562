package classic

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// dockerfile is a parsed Dockerfile.
type dockerfile struct {
	args     []instructions.ArgCommand // before the first FROM
	stages   []instructions.Stage
	escape   rune
	warnings string // whole lines
}

// steps is how many steps are shown.
func (d *dockerfile) steps() int {
	n := len(d.args) + len(d.stages)
	for i := range d.stages {
		n += len(d.stages[i].Commands)
	}
	return n
}

func parseDockerfile(text []byte, name string) (*dockerfile, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, invalid(fmt.Errorf("the Dockerfile (%s) cannot be empty", name))
	}
	ast, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		if strings.Contains(err.Error(), "file with no instructions") {
			return nil, invalid(errors.New("failed to parse Dockerfile: file with no instructions"))
		}
		return nil, invalid(fmt.Errorf("failed to parse Dockerfile: %s", inDockersWords(err)))
	}
	d := &dockerfile{escape: ast.EscapeToken}
	for _, w := range ast.Warnings {
		// Docker has the line on a line of its own.
		d.warnings += "[WARNING]: " + strings.Replace(w.Short, "found in: ", "found in:\n    ", 1) + "\n"
	}
	if d.warnings != "" {
		d.warnings += "[WARNING]: Empty continuation lines will become errors in a future release.\n"
	}
	if d.stages, d.args, err = instructions.Parse(ast.AST, nil); err != nil {
		return nil, invalid(errors.New(inDockersWords(err)))
	}
	return d, nil
}

// inDockersWords is the text of a parser's error as docker's older parser worded it.
func inDockersWords(err error) string {
	return strings.Replace(err.Error(), "dockerfile parse error on line ", "dockerfile parse error line ", 1)
}

// parseTrigger parses one instruction that a base image left for its children.
func parseTrigger(text string) (instructions.Command, error) {
	ast, err := parser.Parse(strings.NewReader(text))
	if err != nil {
		return nil, failed("%s", inDockersWords(err))
	}
	if len(ast.AST.Children) != 1 {
		return nil, failed("onbuild trigger should be a single expression")
	}
	c, err := instructions.ParseCommand(ast.AST.Children[0])
	if err != nil {
		return nil, failed("%s", inDockersWords(err))
	}
	return c, nil
}

// needsBuildKit refuses what the classic builder does not know, in docker's words.
func needsBuildKit(option string) error {
	return failed("the --%s option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build images with BuildKit enabled", option)
}
