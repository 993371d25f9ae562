package layerstest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// Main runs the tests of a package and fails it if goroutines or file descriptors are left.
func Main(m *testing.M) {
	before := openFiles()
	code := m.Run()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if after := openFiles(); code == 0 && len(after) > len(before) {
		fmt.Fprintf(os.Stderr, "%d file descriptors are left; open before: %q, after: %q\n", len(after)-len(before), before, after)
		code = 1
	}
	os.Exit(code)
}

// openFiles names what is open.
func openFiles() (targets []string) {
	const dir = "/proc/self/fd"
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, name := range names {
		target, err := os.Readlink(filepath.Join(dir, name.Name()))
		// The runtime opens some of its own when it first needs them.
		if err == nil && !strings.HasPrefix(target, "anon_inode:[event") {
			targets = append(targets, target)
		}
	}
	return targets
}
