package daemon

import (
	"fmt"

	"github.com/slipwaybuild/slipway/daemon/config"
	"golang.org/x/sys/unix"
)

// Without a configured ceiling the store may take four fifths of its file system, and at most 100 GB.
const (
	usualPercent = 80
	usualMost    = 100 << 30
)

// diskLimit is the ceiling on what the layer store keeps, in bytes.
func diskLimit(root string, c config.OCI) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return 0, fmt.Errorf("measure file system of %s: %w", root, err)
	}
	total := int64(st.Blocks) * st.Bsize
	for _, d := range []config.DiskSpace{c.MaxUsedSpace, c.GCKeepStorage} {
		if n := d.Of(total); n > 0 {
			return n, nil
		}
	}
	return min(total/100*usualPercent, usualMost), nil
}
