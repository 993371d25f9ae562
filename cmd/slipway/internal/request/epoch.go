package request

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// epochArg is the build argument that clamps times; the environment sets it too, see reproducible-builds.org.
const epochArg = "SOURCE_DATE_EPOCH"

// epochGit asks for the time of the context's last commit.
const epochGit = "git"

// setEpoch finds the time that nothing in the outcome may be later than. The flag counts before the build argument, and that before
// the environment.
func setEpoch(ctx context.Context, attrs map[string]string, o Options) error {
	const key = "build-arg:" + epochArg
	switch {
	case o.SourceDateEpoch == epochGit && isURL(o.Context):
		attrs[key] = "context" // the frontend knows the commit
	case o.SourceDateEpoch == epochGit:
		seconds, err := commitTime(ctx, o.Context)
		if err != nil {
			return err
		}
		attrs[key] = seconds
	case o.SourceDateEpoch != "":
		if _, err := strconv.ParseInt(o.SourceDateEpoch, 10, 64); err != nil {
			return fmt.Errorf("source-date-epoch %q is neither git nor a number of seconds since 1970", o.SourceDateEpoch)
		}
		attrs[key] = o.SourceDateEpoch
	default:
		_, given := attrs[key]
		if v := os.Getenv(epochArg); v != "" && !given {
			attrs[key] = v
		}
	}
	return nil
}

// commitTime is when the last commit of a directory's repository was made, in seconds.
func commitTime(ctx context.Context, dir string) (string, error) {
	if dir == "-" {
		return "", errors.New("source-date-epoch=git: a context from standard input has no commit")
	}
	out, err := exec.CommandContext(ctx, "git", "-C", dir, "log", "-1", "--format=%ct").Output()
	if err != nil {
		var ee *exec.ExitError
		if errors.As(err, &ee) && len(ee.Stderr) > 0 {
			err = errors.New(strings.TrimSpace(string(ee.Stderr)))
		}
		return "", fmt.Errorf("source-date-epoch=git: ask for the last commit of %s: %w", dir, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// rewriteTimes has images set later times back, where there is a time to set them back to: without it files that steps made differ from
// build to build. Who says rewrite-timestamp, or wants what is unpacked as well, has it so.
func rewriteTimes(outputs []Output, attrs map[string]string) {
	if attrs["build-arg:"+epochArg] == "" {
		return
	}
	for _, out := range outputs {
		_, given := out.Attrs["rewrite-timestamp"]
		unpack, ok := out.Attrs["unpack"]
		if on, err := strconv.ParseBool(unpack); out.isImage() && !given && (!ok || err == nil && !on) {
			out.Attrs["rewrite-timestamp"] = "true"
		}
	}
}

// isImage tells outputs that have an image's config from those of files.
func (out Output) isImage() bool {
	return out.Type == "image" || out.Type == "oci" || out.Type == "docker"
}
