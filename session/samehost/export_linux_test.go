package samehost

import "os"

// TreeAs opens a directory to be written as another user.
func TreeAs(dir string, uid uint32, keepOwner bool) (*Tree, error) {
	own, err := self()
	if err != nil {
		return nil, err
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	t, err := newThreads(own, identity{uid: uid, gid: uid})
	return &Tree{file: f, threads: t, keepOwner: keepOwner}, err
}
