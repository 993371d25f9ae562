package executor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// maxPasswd is the most that is read of /etc/passwd and of /etc/group, in bytes.
const maxPasswd = 16 << 20

// maxID is above every user and group id: the kernel has 32 bits for them and takes the last for none.
const maxID = 1<<32 - 1

// identity is who a process is.
type identity struct {
	uid, gid int
	groups   []int
	home     string
}

func (id identity) spec() specs.User {
	u := specs.User{UID: uint32(id.uid), GID: uint32(id.gid)}
	// The primary group belongs among the others: without it, a process that changes its group would lose what the group may
	// not do (CVE-2022-2989).
	for _, g := range append([]int{id.gid}, id.groups...) {
		if !slices.Contains(u.AdditionalGids, uint32(g)) {
			u.AdditionalGids = append(u.AdditionalGids, uint32(g))
		}
	}
	return u
}

// lookupUser finds out who name, "user", "user:group" or numbers, is in a root file system. Files that are missing are empty.
func lookupUser(v *view, name string) (identity, error) {
	passwd, err := readAccounts(v, "/etc/passwd")
	if err != nil {
		return identity{}, err
	}
	group, err := readAccounts(v, "/etc/group")
	if err != nil {
		return identity{}, err
	}
	u, err := user.GetExecUser(name, &user.ExecUser{Home: "/"}, passwd, group)
	if err != nil {
		return identity{}, &InvalidSpecError{Field: "user", Err: err}
	}
	for _, n := range append([]int{u.Uid, u.Gid}, u.Sgids...) {
		if n < 0 || n >= maxID {
			return identity{}, &InvalidSpecError{Field: "user", Err: fmt.Errorf("%s: id %d is out of range", name, n)}
		}
	}
	if strings.ContainsRune(u.Home, 0) {
		return identity{}, &InvalidSpecError{Field: "user", Err: fmt.Errorf("%s: home directory %q", name, u.Home)}
	}
	if u.Uid == 0 && u.Home == "/" && passwd.Size() == 0 {
		u.Home = "/root"
	}
	if u.Home == "" {
		u.Home = "/"
	}
	return identity{uid: u.Uid, gid: u.Gid, groups: u.Sgids, home: u.Home}, nil
}

type sizedReader interface {
	io.Reader
	Size() int64
}

func readAccounts(v *view, p string) (sizedReader, error) {
	b, err := v.readFile(p, maxPasswd)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errRuntimeMade) {
		return bytes.NewReader(nil), nil
	}
	if err != nil {
		return nil, &InvalidSpecError{Field: "user", Err: fmt.Errorf("read accounts: %w", err)}
	}
	return bytes.NewReader(b), nil
}
