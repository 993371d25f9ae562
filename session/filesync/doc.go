// Package filesync moves file trees over a session, in BuildKit's wire protocol.
//
// There are two services, both on the client. FileSync reads the client's directories: the daemon calls [Sync], the client
// serves with [NewProvider]. FileSend writes what a build made: the daemon calls [SendTree] or [SendStream], the client serves
// with [NewTarget].
//
// Trees travel as packets (github.com/tonistiigi/fsutil/types). The sender walks its tree and sends one STAT per entry, parents
// first, siblings sorted bytewise, and an empty STAT at the end. An entry's number is its place in that list, from 0. The
// receiver asks with REQ and that number for the regular files whose contents it wants, gets them as DATA packets that end with
// an empty one, and says FIN when it has all; the sender answers FIN. Either side may send ERR with a text instead.
package filesync
