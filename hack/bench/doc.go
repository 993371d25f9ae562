// Command bench measures slipwayd against BuildKit's buildkitd on this machine, side by side, and writes what it saw to
// docs/performance.md, docs/performance.svg and docs/performance.json.
//
//	go run ./hack/bench                     # everything, as docs/performance.md has it
//	go run ./hack/bench -list               # what there is to measure
//	go run ./hack/bench -run 'runs|stages'  # some of it; the other rows stay as they were
//	go run ./hack/bench -scale 0.1 -n 1 -out /tmp/x   # a quick look, written elsewhere
//	go run ./hack/bench -render             # write the page anew from what was measured
//
// Every workload has daemons of its own with empty roots, one for each pair of a daemon and a client (a side). Both use the same OCI runtime and the
// network of the host. Repetitions are interleaved: each side once, then the floor once, then all again; what is told are medians. The
// floor is what the machine itself needs for the least that must be done, measured in the same minutes. Processor time is of the daemon
// and all it waited for, and of the client; unlike the time on the clock it hardly depends on what else the machine does.
// Nothing is deleted while anything is measured as long as the disk has room, since ext4 makes files several times slower after that.
//
// It needs root, runc, busybox (static) and docker-registry, all of which hack/test.sh installs.
package main
