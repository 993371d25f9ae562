package ops

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

const (
	passwdFile = "etc/passwd"
	groupFile  = "etc/group"
	// maxUserFile bounds them, in bytes.
	maxUserFile = 10 << 20
)

// owner is who files are given to.
type owner struct{ uid, gid uint32 }

// UnknownUserError names a user or group that is not in the file system it was looked up in.
type UnknownUserError struct {
	Kind string // "user" or "group"
	Name string
	File string
}

func (e *UnknownUserError) Error() string {
	return fmt.Sprintf("unable to find %s %s: no matching entries in /%s", e.Kind, e.Name, e.File)
}

// owner looks up who opt asks for; nil for nobody. A user given by number has the group of the same number, one given by name
// that of its entry, unless a group is given.
func (r *fileRun) owner(ctx context.Context, opt *pb.ChownOpt) (*owner, error) {
	if opt == nil {
		return nil, nil
	}
	var who owner
	switch u := opt.User.GetUser().(type) {
	case *pb.UserOpt_ByID:
		who = owner{u.ByID, u.ByID}
	case *pb.UserOpt_ByName:
		f, err := lookUp(ctx, r.tree(u.ByName.Input), "user", passwdFile, u.ByName.Name)
		if err != nil {
			return nil, err
		}
		if who.uid, err = number(f, 2); err == nil {
			who.gid, err = number(f, 3)
		}
		if err != nil {
			return nil, fmt.Errorf("user %s in /%s: %w", u.ByName.Name, passwdFile, err)
		}
	}
	switch g := opt.Group.GetUser().(type) {
	case *pb.UserOpt_ByID:
		who.gid = g.ByID
	case *pb.UserOpt_ByName:
		f, err := lookUp(ctx, r.tree(g.ByName.Input), "group", groupFile, g.ByName.Name)
		if err != nil {
			return nil, err
		}
		if who.gid, err = number(f, 2); err != nil {
			return nil, fmt.Errorf("group %s in /%s: %w", g.ByName.Name, groupFile, err)
		}
	}
	return &who, nil
}

// lookUp finds the line of name in a file of colon-separated fields.
func lookUp(ctx context.Context, t fstree.Tree, kind, file, name string) ([]string, error) {
	p, err := fstree.Resolve(ctx, t, file, true)
	var dt []byte
	if err == nil {
		dt, err = fstree.ReadFile(ctx, t, p, maxUserFile)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fstree.ErrNotDir) {
		return nil, &UnknownUserError{Kind: kind, Name: name, File: file}
	}
	if err != nil {
		return nil, fmt.Errorf("look up %s %s: %w", kind, name, err)
	}
	lines := bufio.NewScanner(bytes.NewReader(dt))
	lines.Buffer(nil, maxUserFile+1)
	for lines.Scan() {
		if f := strings.Split(strings.TrimSpace(lines.Text()), ":"); f[0] == name {
			return f, nil
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("look up %s %s: %w", kind, name, err)
	}
	return nil, &UnknownUserError{Kind: kind, Name: name, File: file}
}

func number(fields []string, i int) (uint32, error) {
	if i >= len(fields) {
		return 0, fmt.Errorf("entry of %d fields", len(fields))
	}
	n, err := strconv.ParseUint(fields[i], 10, 32)
	return uint32(n), err
}
