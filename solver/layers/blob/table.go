package blob

import (
	"encoding/binary"
	"slices"
)

// The table behind the EROFS metadata holds what a tree knows and EROFS has no place for: which directories are implied, and
// the first name of every file with several. Two lists, each led by its length: inode numbers; inode numbers with a string.
type table struct {
	implied map[int64]bool
	first   map[int64]string
}

func (l *layout) appendTable(b []byte) []byte {
	var (
		implied []int64
		linked  []*inode
	)
	for _, d := range l.dirs {
		if d.implied {
			implied = append(implied, d.ino.pos/slotSize)
		}
	}
	for _, i := range l.inodes {
		if i.nlink > 1 && !i.isDir() {
			linked = append(linked, i)
		}
	}
	slices.Sort(implied)
	b = binary.AppendUvarint(b, uint64(len(implied)))
	for _, n := range implied {
		b = binary.AppendUvarint(b, uint64(n))
	}
	b = binary.AppendUvarint(b, uint64(len(linked)))
	for _, i := range linked {
		p := i.first.path()
		b = binary.AppendUvarint(b, uint64(i.pos/slotSize))
		b = binary.AppendUvarint(b, uint64(len(p)))
		b = append(b, p...)
	}
	return b
}

func readTable(b []byte) (table, error) {
	t := table{implied: map[int64]bool{}, first: map[int64]string{}}
	bad := false
	next := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			bad = true
			return 0
		}
		b = b[n:]
		return v
	}
	for n := next(); n > 0 && !bad; n-- {
		t.implied[int64(next())] = true
	}
	for n := next(); n > 0 && !bad; n-- {
		ino, size := next(), next()
		if bad || size > uint64(len(b)) {
			bad = true
			break
		}
		t.first[int64(ino)] = string(b[:size])
		b = b[size:]
	}
	if bad {
		return table{}, damaged("table")
	}
	return t, nil
}
