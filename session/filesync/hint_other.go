//go:build unix && !linux

package filesync

import (
	"os"
	"syscall"
	"time"
)

// hintOf gives no hints where change times are not known to be kept.
func hintOf(*syscall.Stat_t, time.Time) string { return "" }

// changed returns the time of the last change of a file's contents: that of its other changes is not known to be kept.
func changed(fi os.FileInfo) time.Time { return fi.ModTime() }
