package executor

import (
	"errors"
	"fmt"
	"strings"

	"github.com/moby/sys/mountinfo"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// upperDir is the directory that takes the writes to a mounted stack. Stubs are taken out of it when it is no longer mounted,
// since the directories that overlayfs copied up for them cannot be seen, let alone removed, through the mount.
func upperDir(u *layers.Upper, m *layers.Rootfs) (string, error) {
	if d, ok := any(u).(interface{ Dir() string }); ok {
		return d.Dir(), nil
	}
	// The store does not tell, the kernel does.
	found, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(m.Path()))
	if err != nil {
		return "", fmt.Errorf("find upper directory: %w", err)
	}
	for _, info := range found {
		for _, option := range splitOptions(info.VFSOptions) {
			if dir, ok := strings.CutPrefix(option, "upperdir="); ok {
				return dir, nil
			}
		}
	}
	return "", errors.New("find upper directory: it is no overlay")
}

// splitOptions cuts at commas that are not escaped, and takes the escapes away.
func splitOptions(s string) []string {
	var out []string
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case s[i] == ',':
			out = append(out, b.String())
			b.Reset()
		default:
			b.WriteByte(s[i])
		}
	}
	return append(out, b.String())
}
