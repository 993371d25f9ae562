// Package network makes the networks of steps: network namespaces that CNI plugins connect, by a configuration of the operator's
// ("cni") or to a bridge of ours ("bridge").
//
// A namespace is a file below the root directory on which the kernel's namespace is mounted; its id and the configuration it was
// connected with are on disk before anything is made. So whatever a killed daemon left, namespaces, links, addresses and packet
// filter rules, is found and removed by the next [Open] over the same root.
//
// Making one takes four programs some tens of milliseconds each, so those of confined steps, which cannot change their network,
// are kept for the next step. Nothing but the addresses outlives a step there: its processes are gone, and their sockets with them.
package network
