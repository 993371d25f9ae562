// Package compose makes the kernel mount layers: EROFS images that are ordinary files, and overlays of them and of
// directories. It uses the mount API of file descriptors (fsopen, fsconfig, fsmount, move_mount), since the older mount(2)
// takes one page of options, and reports every failure with the kernel's own explanation.
//
// A detached mount is a mount that is in no mount table and lives as long as its file descriptor. Nothing is left of it when
// the process dies.
//
// The package keeps no state. Whoever calls owns every descriptor that is returned.
package compose
