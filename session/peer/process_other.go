//go:build !linux

package peer

import "net"

// Process is a program on this host that may end. Only Linux has a way to know.
type Process struct{}

// Self names this process; "" where no peer could make use of it.
func Self() string { return "" }

// Direct knows no process here.
func Direct(net.Conn, string) *Process { return nil }

// Wait is never called: there is no Process.
func (*Process) Wait() bool { return false }

// Ended is never called: there is no Process.
func (*Process) Ended() bool { return false }

// Close is never called: there is no Process.
func (*Process) Close() error { return nil }

func credentialsOf(*net.UnixConn) (uid uint32, pid int32, ok bool) { return 0, 0, false }
