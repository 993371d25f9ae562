package request

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/slipwaybuild/slipway/session/filesync"
	"github.com/slipwaybuild/slipway/session/samehost"
	"github.com/tonistiigi/go-csvvalue"
	"golang.org/x/term"
)

// Output is one place a build's outcome goes to.
type Output struct {
	Type  string
	Attrs map[string]string
	// Target is where the client takes it, nil if it stays at the daemon or goes elsewhere.
	Target *filesync.Target

	file bool // Target opens a regular file
}

// parseOutputs reads --output, --push, --load and the tags. Without any, the outcome is an image in the local store.
func parseOutputs(o Options, stdout io.Writer) ([]Output, error) {
	var outputs []Output
	for _, s := range o.Outputs {
		out, err := parseOutput(s, stdout)
		if err != nil {
			return nil, err
		}
		outputs = append(outputs, out)
	}
	if len(outputs) == 0 {
		outputs = []Output{{Type: "image", Attrs: map[string]string{}}}
	}
	for i := range outputs {
		if err := finish(&outputs[i], o); err != nil {
			return nil, err
		}
	}
	return outputs, nil
}

// parseOutput reads one --output: CSV of key=value, or a destination alone.
func parseOutput(s string, stdout io.Writer) (Output, error) {
	out := Output{Attrs: map[string]string{}}
	fields, err := csvvalue.Fields(s, nil)
	if err != nil {
		return out, fmt.Errorf("output %q: %w", s, err)
	}
	if len(fields) == 1 && fields[0] == s && !strings.HasPrefix(s, "type=") {
		out.Type = "local"
		if s == "-" {
			out.Type = "tar"
		}
		out.Attrs["dest"] = s
	} else {
		for _, f := range fields {
			k, v, ok := strings.Cut(f, "=")
			if !ok {
				return out, fmt.Errorf("invalid value %s", f)
			}
			k = strings.TrimSpace(strings.ToLower(k))
			if k == "type" {
				out.Type = v
				continue
			}
			out.Attrs[k] = v
		}
	}
	if out.Type == "" {
		return out, errors.New("type is required for output")
	}
	if out.Type == "registry" {
		out.Type = "image"
		if _, ok := out.Attrs["push"]; !ok {
			out.Attrs["push"] = "true"
		}
	}
	return out, out.takeDest(stdout)
}

// takeDest turns the destination, which is the client's business, into a target.
func (out *Output) takeDest(stdout io.Writer) error {
	dest, given := out.Attrs["dest"]
	delete(out.Attrs, "dest")
	switch out.Type {
	case "local":
		if dest == "" {
			return errors.New("dest is required for local output")
		}
		if dest == "-" {
			return errors.New("local output cannot go to standard output; use type=tar")
		}
		out.Target = &filesync.Target{Dir: dest}
	case "tar", "oci", "docker":
		if dest == "" && out.Type == "tar" {
			return errors.New("dest is required for tar output")
		}
		if dest == "" || dest == "-" {
			if stdout == nil {
				return fmt.Errorf("%s output goes to standard output, where a detached build has nobody: give it a dest", out.Type)
			}
			if f, ok := stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
				return fmt.Errorf("dest file is required for %s output: refusing to write output to console", out.Type)
			}
			out.Target = &filesync.Target{Open: func(map[string]string) (io.WriteCloser, error) { return keepOpen{stdout}, nil }}
			return nil
		}
		fi, err := os.Stat(dest)
		if err == nil && fi.IsDir() {
			return fmt.Errorf("destination of %s output is a directory: %s", out.Type, dest)
		}
		out.file = err != nil || fi.Mode().IsRegular()
		out.Target = &filesync.Target{Open: func(map[string]string) (io.WriteCloser, error) { return createFile(dest) }}
	default:
		if given {
			return fmt.Errorf("dest has no meaning for %s output", out.Type)
		}
	}
	return nil
}

// finish adds what other flags say about an output.
func finish(out *Output, o Options) error {
	switch out.Type {
	case "image", "docker", "oci":
		if _, ok := out.Attrs["name"]; !ok && len(o.Tags) > 0 {
			out.Attrs["name"] = strings.Join(o.Tags, ",")
		}
		for _, a := range o.Annotations {
			key, value, ok := strings.Cut(a, "=")
			if !ok {
				return fmt.Errorf("invalid annotation %q: expected key=value", a)
			}
			out.Attrs[annotationKey(key)] = value
		}
	}
	if out.Type == "image" && o.Push {
		if out.Attrs["name"] == "" {
			return errors.New("tag is needed when pushing to registry")
		}
		out.Attrs["push"] = strconv.FormatBool(true)
	}
	return nil
}

// annotationKey turns "[type[platform]:]key" into the exporter's attribute.
func annotationKey(key string) string {
	if kind, rest, ok := strings.Cut(key, ":"); ok {
		base, platform, _ := strings.Cut(kind, "[")
		switch base {
		case "manifest", "index", "manifest-descriptor", "index-descriptor":
			attr := "annotation-" + base
			if platform != "" {
				attr += "[" + platform
			}
			return attr + "." + rest
		}
	}
	return "annotation." + key
}

// keepOpen is standard output: the stream ends, the file stays.
type keepOpen struct{ io.Writer }

func (keepOpen) Close() error { return nil }

// createFile writes beside the destination and renames at the end, so that a failed build leaves what was there.
func createFile(dest string) (io.WriteCloser, error) {
	if fi, err := os.Stat(dest); err == nil && !fi.Mode().IsRegular() {
		return os.OpenFile(dest, os.O_WRONLY, 0)
	}
	if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(dest), "."+filepath.Base(dest)+".*")
	if err != nil {
		return nil, err
	}
	return &pendingFile{File: f, dest: dest}, nil
}

// pendingFile is a file that is not there under its name yet.
type pendingFile struct {
	*os.File
	dest  string
	cause error // why it will never be whole
}

var _ filesync.Aborter = (*pendingFile)(nil)

// Abort says that no more will come, and what came is not all.
func (f *pendingFile) Abort(cause error) { f.cause = cause }

// Close publishes the file, or removes it if it is not whole.
func (f *pendingFile) Close() error {
	err := f.cause
	if err == nil {
		err = f.Chmod(0o644)
	}
	err = errors.Join(err, f.File.Close())
	if err == nil {
		err = os.Rename(f.Name(), f.dest)
	}
	if err != nil {
		// It has a name nobody knows; that it cannot be removed is the lesser trouble.
		_ = os.Remove(f.Name())
	}
	return err
}

// lend lets the daemon write a file that a target opens.
func lend(to filesync.Target) func(map[string]string) (samehost.File, error) {
	return func(about map[string]string) (samehost.File, error) {
		w, err := to.Open(about)
		if w == nil || err != nil {
			return nil, err
		}
		f, ok := w.(*pendingFile)
		if !ok {
			return nil, errors.Join(samehost.ErrUnavailable, w.Close()) // it has become something else
		}
		return lentFile{f}, nil
	}
}

// lentFile is a file that is written by another process.
type lentFile struct{ *pendingFile }

// Control implements [samehost.File].
func (f lentFile) Control(use func(fd uintptr)) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(use)
}

// End implements [samehost.File].
func (f lentFile) End(cause error) error {
	if cause != nil {
		f.Abort(cause)
	}
	return f.Close()
}
