package filesync

import (
	"errors"
	"fmt"
)

// mknodAt makes nothing: macOS makes no such file beneath an open directory, and by a path it might be made elsewhere.
func mknodAt(_ int, name string, _ uint32, _ int) error {
	return fmt.Errorf("make device or named pipe %q on macOS: %w", name, errors.ErrUnsupported)
}
