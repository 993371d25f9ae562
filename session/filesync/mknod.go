//go:build unix && !darwin

package filesync

import "golang.org/x/sys/unix"

// mknodAt makes a device or a named pipe in the directory dir.
func mknodAt(dir int, name string, mode uint32, dev int) error {
	return unix.Mknodat(dir, name, mode, dev)
}
