// Package executor runs steps: one process in a container of an OCI runtime over a composed root file system.
//
// # Words
//
// A step is one call of [Executor.Run]. Its [Spec] is plain data. A stack is a list of layers, bottom first; composed, it is
// a directory. An upper is the writable directory over a stack; sealed, it is the layer that the step made. A volume is a
// directory that outlives steps. A view is the file system as the process will see it, walked from outside, before it exists. A
// stub is a file or directory that is there only because something is mounted on it. A bundle is what an OCI runtime takes:
// a config.json and a root directory.
//
// # Order
//
// A step takes what it needs in one order, and gives it back in the reverse one:
//
//  1. secrets are asked for and ssh agents checked, while nothing is held that others could wait for;
//  2. layers are pinned, which never waits;
//  3. volumes are opened in the order of their keys, and a locked one is waited for;
//  4. stacks are composed, stubs made, sockets opened;
//  5. an execution slot is taken;
//  6. a network is taken, or made;
//  7. the process runs.
//
// No step can wait for itself or in a circle: who waits for a volume holds only volumes with smaller keys, and no slot; who
// waits for a slot waits for processes, which wait for nothing of ours.
//
// A [Container] goes the same way up to 4 when it is made and back when it is released. Its processes take no slot: who uses a
// container may wait for steps, which wait for slots.
//
// # Trust
//
// Everything inside a root file system is hostile. A path in it is walked name by name on file descriptors, without the kernel
// following a symlink, so it never leaves the root; what is read from it (passwd, group) must be a regular file of bounded size.
package executor
